"""`python -m fuzz --minutes 60`: sequences of everything for as long as is asked; a failure is shrunk and printed."""

from __future__ import annotations

import argparse
import itertools
import logging
import random
import time
import warnings
from collections.abc import Mapping

import hypothesis
import torch
from hypothesis.stateful import run_state_machine_as_test

from fuzz.holding import TALLY
from fuzz.machine import Machine
from fuzz.shadow import FAMILIES, Family

COMPILED = ("pixart", "llama")
"""The families that are compiled too, in one round of ten: it takes seconds for every graph."""


GUESTS = 6
"""How many other classes of diffusers are had in a round that is theirs: every second one."""


def play(
    seed: int,
    *,
    sequences: int = 20,
    steps: int = 25,
    compiles: bool = False,
    families: Mapping[str, Family] = FAMILIES,
) -> None:
    """One round of sequences, the same for the same seed; raises what they find, shrunk."""

    class Round(Machine):
        pass

    Round.compiles, Round.families = compiles, {n: FAMILIES[n] for n in COMPILED} if compiles else families
    hypothesis.seed(seed)(Round)
    how = hypothesis.settings(
        max_examples=sequences, stateful_step_count=steps, deadline=None, database=None, print_blob=False,
        suppress_health_check=list(hypothesis.HealthCheck),  # type: ignore[arg-type]
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
    )  # fmt: skip
    run_state_machine_as_test(Round, settings=how)


def main() -> None:
    """Rounds, one after another, each with a seed of its own."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="no round begins after these")
    parser.add_argument("--rounds", type=int, help="at most so many")
    parser.add_argument("--seed", type=int, help="of the first round, the next ones count on from it")
    given = parser.parse_args()
    from fuzz.guests import guests  # tiny models of all classes, which a minute of this does without

    warnings.simplefilter("error")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    seed, begun = random.randrange(10**6) * 10 if given.seed is None else given.seed, time.monotonic()
    for number in itertools.count(seed):
        if time.monotonic() - begun > 60 * given.minutes or number - seed == given.rounds:
            break
        try:
            others = guests(number // 2 * GUESTS, GUESTS) if number % 2 == 0 else FAMILIES
            play(number, compiles=number % 10 == 9, families=others)
        except BaseException:
            print(f"\nseed {number} failed; again: PYTHONPATH=tests python -m fuzz --rounds 1 --seed {number}\n")
            raise
        print(f"seed {number}: so far {TALLY}", flush=True)
    print(f"{(time.monotonic() - begun) / 60:.0f} minutes without a failure: {TALLY}\n{TALLY.deeds}")


if __name__ == "__main__":
    main()
