"""Getting tasks done by a Ray cluster: actors that load once, on whatever nodes there are at the moment.

Nothing rests on Ray. An actor has one task at a time; where it is lost, `drive` has the task done again, and if it had
been committed all the same, the store knows.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
import time
import traceback
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from symskew.models import quiet_bars
from symskew.offline import is_loopback, is_offline
from symskew.study.engine import LOOK, TRIES, NoWorkersError, WorkerDiedError
from symskew.study.work import MODEL, Outcome, Outfit, Task, Worker
from symskew.table import need


def connect(address: str) -> None:
    """Make this process a driver of a running Ray cluster; "auto" is the one of `RAY_ADDRESS`, or of this machine.

    Raises:
        ValueError: there is none, or it is on the network and this process is offline.
    """
    ray = need("ray", "ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address.startswith("ray://"):
        raise ValueError(f"study: a driver runs on a node of its cluster; there, give host:port instead of {address}")
    host, colon, port = (os.environ.get("RAY_ADDRESS", "") if address == "auto" else address).rpartition(":")
    if colon and is_offline() and not is_loopback(host):
        raise ValueError(
            f"study: offline, only this machine's loopback addresses are reached, and the Ray cluster is at {host}; "
            "run without --offline, or without --ray"
        )
    try:
        if colon and port.isdecimal():  # Ray itself looks for minutes, and then ends the process
            socket.create_connection((host, int(port)), timeout=30).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"study: no Ray cluster at {address}: {reason}; `ray start --head` starts one") from error


class Hand:
    """What runs as an actor: a worker of the study's in a process of its own."""

    def __init__(self, outfit: Outfit, place: str) -> None:
        quiet_bars()
        with suppress(OSError):
            os.chdir(place)  # relative paths in a study are the driver's
        self._worker = Worker(outfit)

    def begin(self, token: str) -> None:
        """Make sure that the study's folder here is the driver's, and that files can be committed to it.

        Raises:
            OSError: it is not, or they cannot.
        """
        folder = self._worker.store.folder
        own = folder / f".{uuid.uuid4().hex}.tmp"
        os.link(folder / token, own)
        own.unlink()

    def run(self, task: Task, singly: bool) -> Outcome:
        """Do a task. What is raised can be sent: not every library's errors can."""
        try:
            return self._worker.do(task, singly=singly)
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise OSError(error.errno, str(error)) from None
            raise RuntimeError(traceback.format_exc()) from None


@dataclass(eq=False)
class _Job:
    task: Task
    singly: bool
    told: Future[Outcome] = field(default_factory=Future)


@dataclass(eq=False)
class _Seat:
    """An actor: it begins, is idle, or has a job."""

    actor: Any
    loads: str
    begun: bool = False
    job: _Job | None = None


@dataclass(eq=False)
class _Crew:
    """The actors that hold the same thing, and the jobs that wait for them."""

    jobs: deque[_Job] = field(default_factory=deque)
    seats: set[_Seat] = field(default_factory=set)
    idle: list[_Seat] = field(default_factory=list)
    barred: int = 0
    stillborn: int = 0


class Cluster:
    """Runs tasks in actors of the Ray cluster that this process is connected to, by `ray.init` or `connect`.

    An actor loads one thing, the pipeline or one extractor, and keeps it; those that nobody waits for make room for
    others. There are as many as the nodes have room for, so nodes may join and leave; or `workers` of them, some of
    which wait for nodes if need be, as an autoscaler expects.

    Args:
        outfit: what a worker needs. The folder must be the same, under the same path, on all nodes.
        workers: how many actors; by default as many as there is room for, looked at every second.
        device: theirs, as torch names it; "auto" is "cuda" if a node has GPUs, else the outfit's.
        scorer_gpus: the share of a GPU for an actor that scores; one that generates has a whole one. Ray counts GPUs
            and does not know their memory: the largest scorers take 5 GB each (`Extractor.memory`).

    Raises:
        ValueError: a share that is none, or the actors' number format would be another than the driver's.
    """

    def __init__(
        self, outfit: Outfit, *, workers: int | None = None, device: str = "auto", scorer_gpus: float = 0.25
    ) -> None:
        self._ray = need("ray", "ray")
        if not 0 < scorer_gpus <= 1:
            raise ValueError(f"study: a scorer's share of a GPU must be above 0 and at most 1, got {scorer_gpus}")
        if device == "auto":
            device = "cuda" if self._ray.cluster_resources().get("GPU") else outfit.device
        if outfit.dtype == "auto" and device != outfit.device:
            raise ValueError(
                f"study: workers are on {device} and the driver on {outfit.device}, whose number formats differ: "
                "write dtype: float16 (or float32, bfloat16) into the study"
            )
        threads = outfit.threads if device == "cpu" else None
        self._outfit = replace(outfit, folder=outfit.folder.resolve(), device=device, threads=threads)
        self._scorer_gpus, self._wanted, self._room, self._looked = scorer_gpus, workers, 0, 0.0
        # Ray is not to repeat anything by itself: `drive` does, and counts.
        self._hand = self._ray.remote(max_restarts=0, max_task_retries=0)(Hand)
        self._crews: dict[str, _Crew] = {}
        self._stopped: NoWorkersError | None = None
        self._token = self._outfit.folder / f".{uuid.uuid4().hex}.tmp"
        self._token.touch()
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._tend, daemon=True)
        self._thread.start()

    @property
    def workers(self) -> int:
        """As many as are wanted, or there is room for at the moment."""
        return max(1, self._wanted or self._room)

    def submit(self, task: Task, *, singly: bool) -> Future[Outcome]:
        """Have it done by the next actor that is free and holds what it needs."""
        job = _Job(task, singly)
        self._events.put(partial(self._take, job))
        return job.told

    def close(self) -> None:
        """End the actors, in the middle of whatever they do."""
        self._events.put(None)
        self._thread.join()
        self._token.unlink(missing_ok=True)

    # All that follows happens in one thread, event by event, so that nothing needs a lock.

    def _tend(self) -> None:
        while True:
            try:
                with suppress(queue.Empty):
                    event = self._events.get(timeout=LOOK)
                    if event is None:
                        break
                    event()
                if time.monotonic() - self._looked > LOOK:
                    self._hire()
            except Exception as error:
                self._stop(f"the Ray cluster fails: {' '.join(str(error).split())}")
        for crew in self._crews.values():
            for seat in crew.seats:
                with suppress(Exception):
                    self._ray.kill(seat.actor)

    def _take(self, job: _Job) -> None:
        if self._stopped is not None:
            job.told.set_exception(self._stopped)
            return
        crew = self._crews.setdefault(job.task.loads, _Crew())
        crew.jobs.append(job)
        self._assign(crew)
        if not crew.seats:
            self._hire()

    def _assign(self, crew: _Crew) -> None:
        while crew.jobs and crew.idle:
            seat, job = crew.idle.pop(), crew.jobs.popleft()
            seat.job = job
            self._call(seat, self._finished, "run", job.task, job.singly)

    def _call(self, seat: _Seat, then: Callable[[_Seat, Any], None], method: str, *given: Any) -> None:
        future = getattr(seat.actor, method).remote(*given).future()
        future.add_done_callback(lambda done: self._events.put(partial(then, seat, done)))

    def _finished(self, seat: _Seat, done: Future[Outcome]) -> None:
        crew, job = self._crews[seat.loads], seat.job
        error: Any = done.exception()
        if job is None or self._stopped is not None:
            return
        seat.job = None
        if error is None or isinstance(error, self._ray.exceptions.RayTaskError):
            crew.idle.append(seat)
            self._assign(crew)
            if error is None:
                job.told.set_result(done.result())
            else:
                job.told.set_exception(error.cause)
            return
        self._lose(seat)
        # Its node may be gone, and others with it: a task that is given to the dead would be blamed for it.
        for each in self._crews.values():
            idle, each.idle = each.idle, []
            for other in idle:
                self._call(other, self._begun, "begin", self._token.name)
        job.told.set_exception(WorkerDiedError(str(error), alone=True))
        self._hire()

    def _lose(self, seat: _Seat) -> None:
        self._crews[seat.loads].seats.discard(seat)
        self._ray.kill(seat.actor)

    def _hire(self) -> None:
        self._looked = time.monotonic()
        awaited = [loads for loads, crew in self._crews.items() if crew.jobs]
        if not awaited or self._stopped is not None:
            return
        for crew in self._crews.values():
            while crew.idle and not crew.jobs:
                self._lose(crew.idle.pop())
        loads, crew = awaited[0], self._crews[awaited[0]]
        cpus = float(self._outfit.threads or 1)
        gpus = 0.0 if self._outfit.device == "cpu" else 1.0 if loads == MODEL else self._scorer_gpus
        shares = {name: share for name, share in (("CPU", cpus), ("GPU", gpus)) if share}
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        self._room = sum(min(int(node.get(name, 0) / share + 1e-6) for name, share in shares.items()) for node in nodes)
        useful = len(crew.jobs) + sum(seat.job is not None for seat in crew.seats) + crew.barred
        for _ in range(min(self.workers, useful) - len(crew.seats)):
            hand = self._hand.options(num_cpus=cpus, num_gpus=gpus)
            seat = _Seat(hand.remote(self._outfit, os.getcwd()), loads)
            crew.seats.add(seat)
            self._call(seat, self._begun, "begin", self._token.name)

    def _begun(self, seat: _Seat, done: Future[None]) -> None:
        crew = self._crews[seat.loads]
        error: Any = done.exception()
        if error is None:
            seat.begun, crew.stillborn = True, 0
            crew.idle.append(seat)
            self._assign(crew)
        elif isinstance(error, self._ray.exceptions.RayTaskError):
            # It gets no task but keeps its place, so that no other is put there.
            crew.barred += 1
            reason = f"a node cannot be used: {type(error.cause).__name__}: {error.cause}"
            if isinstance(error.cause, OSError):
                reason += f"; all nodes need one folder {self._outfit.folder}, on a file system that has hard links"
            if crew.barred == len(crew.seats):
                self._stop(reason)
            else:
                logging.getLogger(__name__).warning("study: %s", reason)
        else:
            self._lose(seat)
            crew.stillborn += not seat.begun
            if crew.stillborn >= TRIES and len(crew.seats) == crew.barred:
                self._stop(f"{crew.stillborn} workers in a row ended as they began: {error}")

    def _stop(self, reason: str) -> None:
        if self._stopped is not None:
            return
        self._stopped = NoWorkersError(f"study: {reason}")
        for crew in self._crews.values():
            for job in [*crew.jobs, *(seat.job for seat in crew.seats if seat.job is not None)]:
                job.told.set_exception(self._stopped)
            crew.jobs.clear()
