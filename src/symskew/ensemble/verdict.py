"""What went right and wrong: a reading held against a prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from symskew.ensemble.judge import Reading
from symskew.ensemble.vocabulary import ColouredDigit

__all__ = ["FAILURES", "Failure", "Verdict", "compare", "failure_counts"]

FAILURES: tuple[str, ...] = ("missing", "extra", "doubled", "leaked", "substituted", "unreadable")
"""The kinds of failure.

- `missing`: an object of the prompt whose colour is not in the image.
- `extra`: a colour is in the image that the prompt does not have.
- `doubled`: the colour shows several digits where the prompt has one.
- `leaked`: an attribute went to the wrong object: a prompted digit in a colour the prompt does not pair it with, or in
  the colour of another object of the prompt.
- `substituted`: the colour shows one digit, and it is none that the prompt has.
- `unreadable`: the colour's ink is no digit (fused, broken, half drawn).
"""


@dataclass(frozen=True)
class Failure:
    """One failure. `wanted` is the object of the prompt it befell (None for an extra); `seen` says what is there."""

    kind: str
    wanted: ColouredDigit | None
    seen: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.wanted or 'nothing'} → {self.seen}"


@dataclass(frozen=True)
class Verdict:
    """How an image answers its prompt.

    Attributes:
        wanted: the objects of the prompt.
        right: those of them that are in the image as prompted.
        failures: everything else, at most one for each object of the prompt, and one for each extra colour.
        log_likelihood: log-probability (nats) the judge gives to the image showing exactly the prompt's objects.
    """

    wanted: frozenset[ColouredDigit]
    right: frozenset[ColouredDigit]
    failures: tuple[Failure, ...]
    log_likelihood: float

    @property
    def all_right(self) -> bool:
        """Whether the image shows the prompt's objects and nothing else."""
        return not self.failures

    @property
    def accuracy(self) -> float:
        """The share of the prompt's objects that are right."""
        return len(self.right) / len(self.wanted)


def compare(reading: Reading, objects: Iterable[ColouredDigit]) -> Verdict:
    """Hold a reading against the prompt's objects, telling the failures apart (see `FAILURES`).

    A digit missing in its colour that shows up in a colour the prompt does not have is one leak, not a missing object
    and an extra one. `ValueError` where `objects` is empty or has a colour twice.
    """
    wanted = frozenset(objects)
    if not wanted or len({item.colour for item in wanted}) < len(wanted):
        raise ValueError(f"compare: expected objects in different colours, got {', '.join(map(str, wanted)) or 'none'}")
    seen = {item.colour: item.digit for item in reading.objects}
    extras = {c for c in (*seen, *reading.several, *reading.unreadable) if c not in {item.colour for item in wanted}}
    digits = {item.digit for item in wanted}
    failures = []
    for item in sorted(wanted - reading.objects):
        if item.colour in reading.several:
            failures.append(Failure("doubled", item, f"several {item.colour}"))
        elif item.colour in reading.unreadable:
            failures.append(Failure("unreadable", item, f"unreadable {item.colour}"))
        elif item.colour in seen:
            kind = "leaked" if seen[item.colour] in digits else "substituted"
            failures.append(Failure(kind, item, str(ColouredDigit(item.colour, seen[item.colour]))))
        elif fled := sorted(c for c in extras if seen.get(c) == item.digit):
            extras.remove(fled[0])
            failures.append(Failure("leaked", item, str(ColouredDigit(fled[0], item.digit))))
        else:
            failures.append(Failure("missing", item, f"no {item.colour}"))
    for colour in sorted(extras):
        state = "several" if colour in reading.several else "unreadable"
        failures.append(
            Failure("extra", None, str(ColouredDigit(colour, seen[colour])) if colour in seen else f"{state} {colour}")
        )
    return Verdict(wanted, wanted & reading.objects, tuple(failures), reading.log_likelihood(wanted))


def failure_counts(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many failures of each kind there are, kinds without any included."""
    counts = Counter(failure.kind for verdict in verdicts for failure in verdict.failures)
    return {kind: counts[kind] for kind in FAILURES}
