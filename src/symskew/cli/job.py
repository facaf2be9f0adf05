"""One run of a command: prepared as a whole, then generated, judged and saved image by image, and reported on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from symskew.circulate import Circulation
from symskew.cli.judging import Jury, Opinion, doubts, make_jury
from symskew.cli.progress import Progress
from symskew.cli.say import FAILED, INTERRUPTED, err, refusing, uninterrupted, warn
from symskew.files import replacing
from symskew.generation import Request, Result, check, complete, describe_request, generate, repeat, settings_id
from symskew.images import Folder
from symskew.models import Model, find_model, load_model, quiet_bars

if TYPE_CHECKING:
    from typing_extensions import Self

SHIPPED_BATCH = 8
"""Images at a time for the shipped models, whose cost is in calls rather than in sums."""


@dataclass(frozen=True)
class Done:
    """A finished image: what made it, where it is, and what the judge read."""

    result: Result
    path: Path
    opinion: Opinion | None
    more: dict[str, Any] = field(default_factory=dict)
    """What else is known of it, as plain values."""

    def row(self) -> dict[str, Any]:
        """As plain values."""
        record = self.result.record()
        verdict = self.opinion.row() if self.opinion else {}
        return {"file": str(self.path), **record, "seconds": round(self.result.seconds, 3), **verdict, **self.more}


@dataclass
class Job:
    """What is to be generated, and what has been. `requests` are unique, by the ids of their images."""

    model: Model
    requests: dict[str, Request]
    folder: Folder
    jury: Jury | None
    batch: int
    paired: list[tuple[str, str]] = field(default_factory=list)
    """In a comparison: the ids of the vanilla and the controlled image, pair by pair."""
    again: dict[str, Any] | None = None
    """The record to repeat, batch and all, instead of generating `requests`."""
    source: Path | None = None
    """The image that is made again."""
    warnings: list[str] = field(default_factory=list)
    done: dict[str, Done] = field(default_factory=dict)
    diagnosis: dict[str, Any] | None = None
    """Settings of `symskew.diagnose` to generate under."""

    @classmethod
    def prepare(
        cls,
        name: str,
        prompts: list[str],
        seeds: list[int],
        choose: Callable[[dict[str, Any] | None], dict[str, Any]],
        *,
        compare: bool,
        folder: Path,
        dtype: str,
        device: str,
        batch: int | None,
        diagnosis: dict[str, Any] | None = None,
        **common: Any,
    ) -> Self:
        """Load the model and check everything, so that what is wrong is said before any time is spent.

        Raises:
            ValueError: whatever cannot be done.
        """
        if batch is not None and batch < 1:
            raise ValueError(f"--batch-size must be at least 1, got {batch}")
        files = find_model(name)
        control = choose(files.control)
        where = {key: control.pop(key) for key in ("layers", "start", "stop") if key in control}
        circulation = Circulation(**control)
        quiet_bars()
        model = load_model(files, dtype=dtype, device=device)
        sides: list[dict[str, Any]] = [{"circulation": circulation, **where}]
        if compare:
            sides.insert(0, {})
        requests: dict[str, Request] = {}
        paired = []
        for prompt, seed in itertools.product(prompts, seeds):
            asked = [complete(model, Request(prompt, seed, **side, **common)) for side in sides]
            ids = [settings_id(describe_request(model, request)) for request in asked]
            requests |= dict(zip(ids, asked, strict=True))
            paired += [(ids[0], ids[1])] if compare else []
        check(model, list(requests.values()), diagnosis)
        first = next(iter(requests.values()))
        jury = make_jury(files, first.size)
        said = [f"{prompt!r}: {doubt}" for prompt in prompts if files.judged and (doubt := doubts(prompt))]
        target = Folder(folder)  # last, so that a refusal leaves no folder behind
        batch = batch or (SHIPPED_BATCH if files.judged else 1)
        return cls(model, requests, target, jury, batch, paired, warnings=said, diagnosis=diagnosis)

    def run(self, *, quiet: bool = False) -> None:
        """Generate, judge and save; what is finished is in `done` and on disk, whatever happens next."""
        images = len(self.requests) if self.again is None else self.again["run"]["batch"]
        with Progress(images, quiet=quiet) as progress:
            for finished in _by_batch(self._results(progress.advance)):
                with uninterrupted():
                    self._keep(finished)

    def _keep(self, finished: list[Result]) -> None:
        for result in finished:
            self._keep_one(result)

    def _keep_one(self, result: Result, **more: Any) -> Done:
        opinion = self.jury.opinion(result.image, result.settings["prompt"]) if self.jury else None
        told = {"seconds": round(result.seconds, 3), **(opinion.row() if opinion else {}), **more}
        path = self.folder.save(result.image, result.record(), **told)
        done = self.done[result.id] = Done(replace(result, diagnosis=None), path, opinion, more)
        return done

    def _results(self, on_step: Callable[[float], None]) -> Iterable[Result]:
        if self.again is not None:
            return [repeat(self.model, self.again, on_step)]
        return generate(self.model, list(self.requests.values()), batch=self.batch, on_step=on_step,
                        diagnose=self.diagnosis)  # fmt: skip

    def ordered(self) -> list[Done]:
        """What is finished, in the order it was asked for."""
        return [self.done[id_] for id_ in self.requests if id_ in self.done]

    def pairs(self) -> list[tuple[Done, Done]]:
        """Vanilla and controlled image of the same prompt and seed, for all that was asked."""
        return [(self.done[vanilla], self.done[controlled]) for vanilla, controlled in self.paired]

    def report(self, *, as_json: bool, quiet: bool) -> None:
        """Draw the comparison and print what came of it all."""
        from symskew.cli.report import print_json, print_tables

        picture = None
        if self.paired:
            from symskew.cli.comparison import draw_comparison

            picture = self.folder.path / "compare.png"
            with replacing(picture) as partial:
                draw_comparison(self.pairs()).save(partial, format="PNG")
        if as_json:
            print_json(self, **({"compare": str(picture)} if picture else {}))
        elif not quiet:
            print_tables(self, picture)


def carry_out(job: Job, *, as_json: bool, quiet: bool) -> None:
    """Run a job and report on it; what goes wrong on the way, or Ctrl-C, is said in one sentence."""
    for warning in job.warnings:
        warn(warning)
    try:
        with refusing(FAILED):
            job.run(quiet=quiet)
    except KeyboardInterrupt:
        kept = f"{len(job.done)} of {len(job.requests)} images were finished and kept in {job.folder.path}"
        err().print(f"stopped: {kept}", soft_wrap=True, markup=False)
        raise typer.Exit(INTERRUPTED) from None
    with refusing(FAILED):
        job.report(as_json=as_json, quiet=quiet)


def _by_batch(results: Iterable[Result]) -> Iterator[list[Result]]:
    # The images of a batch are finished all at once, and so must they be kept.
    batch: list[Result] = []
    for result in results:
        batch.append(result)
        if len(batch) == result.run["batch"]:
            yield batch
            batch = []
    if batch:
        yield batch
