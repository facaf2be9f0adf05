"""What a cluster costs: Ray with one and with two workers, and a thousand workers simulated.

    python benchmarks/cluster.py             some minutes
    python benchmarks/cluster.py --write     put the tables into benchmarks/README.md

The simulation runs the real `drive` against workers in virtual time. Its clock advances by the processor time that
`drive` really uses, by what Ray was measured to use for each task, and, while the driver waits, to the next task's end.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import os
import platform
import random
import sys
import tempfile
import time
import tracemalloc
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from symskew.files import write_section
from symskew.study import Ledger, Options, Store, Study, run_study
from symskew.study.cluster import Cluster
from symskew.study.engine import WorkerDiedError, closing, drive
from symskew.study.plan import plan, remaining
from symskew.study.run import describe_settings
from symskew.study.verify import verify
from symskew.study.work import MODEL, Outcome, Outfit
from tinycluster import join, nodes_of_ray  # pyright: ignore[reportMissingImports]

IMAGES, UNIT = 48, 4
"""Really generated, by one worker and by two, and how many at a time."""
EMPTY, SLOW = 1000, 30
"""Tasks that do nothing, and tasks that wait, as for an accelerator."""
WORKERS = 1000
"""Simulated ones."""
MANY = 20_000
"""Samples that are planned, and files that are listed."""


@dataclass(frozen=True)
class Wait:
    """A task that waits."""

    id: str
    seconds: float
    loads: str = MODEL
    ballast: bytes = bytes(4096)
    """As long as the description of a unit."""

    @property
    def sample_ids(self) -> list[str]:
        """None of a study."""
        return [self.id]

    def is_done(self, store: Store) -> bool:
        """Looked at like that of a unit."""
        return store.has("samples", "none", self.id)

    def run(self, worker: Any, *, singly: bool) -> Outcome:
        """Wait."""
        time.sleep(self.seconds)
        return Outcome(self.id, 1, self.seconds, self.seconds)


def run_all(tasks: Iterable[Any], executor: Any) -> tuple[list[float], int]:
    """When each task was done, by the clock, and how many were given up."""
    ends: list[float] = []
    lost: list[str] = []
    with closing(executor):
        drive(tasks, executor, on_done=lambda _: ends.append(time.perf_counter()),
              on_failure=lambda task, _: lost.append(task.id))  # fmt: skip
    return ends, len(lost)


def waiting(folder: Path, count: int, seconds: float, workers: int) -> tuple[float, float]:
    """Tasks a second once all workers are there, and the driver's processor time for each."""
    outfit = Outfit(folder, "none", "float32", "cpu", 1, 1, {})
    began = time.process_time()
    ends, _ = run_all((Wait(str(number), seconds) for number in range(count)), Cluster(outfit, workers=workers))
    used = (time.process_time() - began) / count
    settled = ends[count // 4 :]
    return (len(settled) - 1) / (settled[-1] - settled[0]), used


def images(folder: Path, executor: Any = None) -> tuple[float, float, str]:
    """Images a second once the workers are there, their share of time outside the pipeline, and the digest."""
    study = Study.of({
        "model": "ensemble-sdxl", "seeds": {"eval": 0}, "settings": {"vanilla": {}}, "chunk": UNIT, "metrics": [],
        "prompts": {"some": {"ensemble": {"count": IMAGES}}},
    })  # fmt: skip
    told: list[tuple[float, float, float]] = []

    def tell(ledger: Ledger) -> None:
        if ledger.done > UNIT * len(told):
            told.append((time.perf_counter(), ledger.busy, ledger.pipeline))

    run_study(study, folder, Options(workers=1, batch=UNIT), executor=executor, on_progress=tell)
    # The first units of two workers have the loading of the model in them.
    seconds, busy, pipeline = (last - second for second, last in zip(told[1], told[-1], strict=True))
    return UNIT * (len(told) - 2) / seconds, busy / pipeline - 1, verify(folder).digest


class Simulated:
    """Workers in virtual time: a task takes about `seconds`, and now and then a worker dies with it.

    Args:
        count: of workers.
        seconds: of a task, on average; they differ by a tenth.
        cost: seconds of the driver for each task, beside what `drive` uses.
        deaths: the share of tasks in which the worker dies.
        total: tasks that will be submitted at first.
    """

    def __init__(self, count: int, seconds: float, cost: float, deaths: float, total: int) -> None:
        self.workers, self._seconds, self._cost, self._deaths, self._left = count, seconds, cost, deaths, total
        self._chance = random.Random(0)
        self._ends: list[tuple[float, int, Future[Outcome], Any]] = []
        self._queue: deque[tuple[Future[Outcome], Any]] = deque()
        self._number, self._free, self._flying = itertools.count(), deque([0.0] * count), 0
        self._seen: set[str] = set()
        self.now = self.worked = self.idle = self.driving = 0.0
        self._mark = time.thread_time()

    def submit(self, task: Any, *, singly: bool) -> Future[Outcome]:
        """Begin a task where a worker is free; then let the next one end, if the driver waits now."""
        self._charge(0.0)
        future: Future[Outcome] = Future()
        self._flying += 1
        self._left -= task.id not in self._seen
        self._seen.add(task.id)
        self._queue.append((future, task))
        self._begin()
        if self._left == 0 or self._flying == 2 * self.workers:
            self._end()
        self._mark = time.thread_time()
        return future

    def told(self, _: Any) -> None:
        """Where nothing is left to submit, the driver waits after each outcome."""
        if self._left == 0 and self._ends:
            self._charge(0.0)
            self._end()
            self._mark = time.thread_time()

    def close(self) -> None:
        """Nothing runs."""

    def _charge(self, cost: float) -> None:
        used = time.thread_time() - self._mark + cost
        self.now, self.driving, self._mark = self.now + used, self.driving + used, time.thread_time()

    def _begin(self) -> None:
        while self._free and self._queue:
            future, task = self._queue.popleft()
            self.idle += self.now - self._free.popleft()
            seconds = self._seconds * self._chance.uniform(0.9, 1.1)
            self.worked += seconds
            heapq.heappush(self._ends, (self.now + seconds, next(self._number), future, task))

    def _end(self) -> None:
        end, _, future, task = heapq.heappop(self._ends)
        self.now = max(self.now, end)
        self._mark = time.thread_time()
        self._charge(self._cost)
        self._free.append(end)
        self._flying -= 1
        self._begin()
        if self._chance.random() < self._deaths:
            future.set_exception(WorkerDiedError("simulated", alone=True))
        else:
            future.set_result(Outcome(task.id, 1, 0.0, 0.0))


def simulate(seconds: float, cost: float, deaths: float = 0.0) -> dict[str, float]:
    """How busy `WORKERS` workers are with tasks of this length, and the driver with them."""
    total = 30 * WORKERS
    workers = Simulated(WORKERS, seconds, cost, deaths, total)
    lost: list[str] = []

    def lose(task: Any, _: Any) -> None:
        lost.append(task.id)
        workers.told(task)

    drive((Wait(str(number), seconds) for number in range(total)), workers, on_done=workers.told, on_failure=lose)
    return {
        "busy": workers.worked / (workers.worked + workers.idle),
        "rate": total / workers.now,
        "driver": workers.driving / workers.now,
        "cost": workers.driving / total,
        "lost": len(lost),
    }


def planning() -> tuple[float, float, float]:
    """Microseconds and bytes for each sample of a large plan, and seconds to list as many files."""
    study = Study.of({
        "model": "ensemble-sdxl", "seeds": {"eval": f"0-{MANY // 200 - 1}"}, "chunk": 64,
        "prompts": {"some": [f"prompt {number}" for number in range(100)]},
        "settings": {"vanilla": {}, "static": {"alpha": 1.1}},
    })  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        store = Store(place)
        descriptions = describe_settings(study, store)
        began = time.process_time()
        units = remaining(plan(study, descriptions), store)
        used = time.process_time() - began
        assert sum(len(unit.samples) for unit in units) == MANY
        tracemalloc.start()
        units = remaining(plan(study, descriptions), store)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        folder = Path(place, "samples", "setting")
        folder.mkdir(parents=True)
        for number in range(MANY):
            (folder / f"{number:016x}.parquet").touch()
        began = time.perf_counter()
        assert len(store.done("samples")["setting"]) == MANY
        return used / MANY * 1e6, peak / MANY, time.perf_counter() - began


def main() -> None:
    """Measure, print, and on request write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    planned, memory, listing = planning()
    with tempfile.TemporaryDirectory() as place, nodes_of_ray() as nodes:
        folder = Path(place)
        here, plain, digest = images(folder / "here")
        empty, used = waiting(folder, EMPTY, 0.0, 1)
        slow = [waiting(folder, SLOW, 0.5, 1)[0]]
        drawn = [images(folder / "one", Cluster)]
        join(nodes)
        slow.append(waiting(folder, 2 * SLOW, 0.5, 2)[0])
        drawn.append(images(folder / "two", Cluster))
        assert {found for *_, found in drawn} == {digest}
    lines = [
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}; load before it began: {load:.1f}.",
        "",
        "| | one process | Ray, 1 worker | Ray, 2 workers | 2 ÷ 1 |",
        "|---|---:|---:|---:|---:|",
        f"| tasks that wait half a second, a second | | {slow[0]:.2f} | {slow[1]:.2f} | {slow[1] / slow[0]:.2f} |",
        f"| images of ensemble-sdxl, a second | {here:.2f} | {drawn[0][0]:.2f} | {drawn[1][0]:.2f} "
        f"| {drawn[1][0] / drawn[0][0]:.2f} |",
        f"| share of a worker's time outside the pipeline | {plain:.1%} | {drawn[0][1]:.1%} | {drawn[1][1]:.1%} | |",
        "",
        "| | measured |",
        "|---|---:|",
        f"| empty tasks a second, by one worker | {empty:.0f} |",
        f"| processor time of the driver for each, Ray's included | {used * 1e3:.2f} ms |",
        f"| planning, for each sample | {planned:.0f} µs, {memory:.0f} bytes at most |",
        f"| listing {MANY:,} files of one folder | {listing:.2f} s |",
        "",
        f"{WORKERS:,} workers, simulated:",
        "",
        "| a task takes | workers busy | tasks a second | driver busy | workers busy if Ray cost nothing |",
        "|---:|---:|---:|---:|---:|",
    ]
    for seconds in (300.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1):
        found, bare = simulate(seconds, used), simulate(seconds, 0.0)["busy"]
        lines.append(
            f"| {seconds:g} s | {found['busy']:.1%} | {found['rate']:.0f} | {found['driver']:.0%} | {bare:.1%} |"
        )
    dying = simulate(300.0, used, 0.01)
    lines += [
        "",
        f"`drive` alone takes {simulate(0.01, 0.0)['cost'] * 1e6:.0f} µs for a task. Where a worker dies in every "
        "hundredth,",
        f"{dying['lost']:.0f} of {30 * WORKERS:,} tasks are given up for dying three times, and the workers are "
        f"{dying['busy']:.1%} busy.",
        "",
    ]
    print("\n".join(lines))
    if options.write:
        write_section(Path(__file__).parent / "README.md", "cluster", lines)


if __name__ == "__main__":
    main()
