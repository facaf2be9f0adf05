"""Attachment never lies: sequences of whatever may be done to a model; `make nightly` runs them for an hour."""

from fuzz.__main__ import play
from fuzz.holding import TALLY


def test_a_minute_of_sequences():
    play(0, sequences=12, steps=20)
    assert TALLY.compared > 100
    assert TALLY.errors > 10
    assert TALLY.interruptions > 10
    assert len(TALLY.deeds) > 5
