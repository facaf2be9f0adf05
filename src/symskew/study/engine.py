"""Getting tasks done: by this process or by several, each tried again where that may help, and given up where not."""

from __future__ import annotations

import errno
import os
import queue
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import Protocol

from symskew.models import quiet_bars
from symskew.study.work import Outcome, Outfit, Task, Worker

TRIES = 3
"""Of a task whose code fails: twice as a whole, then sample by sample. And of one whose worker dies."""
LOOK = 1.0
"""Seconds between two looks at how many workers there are, where nothing else happens."""
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


class WorkerDiedError(RuntimeError):
    """A worker ended in the middle of a task, without a word: killed, or out of memory.

    Attributes:
        alone: no other task was lost with this one, so if a task was to blame it is this.
    """

    def __init__(self, reason: str, *, alone: bool = False) -> None:
        super().__init__(reason)
        self.alone = alone


class NoWorkersError(RuntimeError):
    """Nobody is left to do anything, and nobody will come."""


class Executor(Protocol):
    """Whoever runs tasks: this process, a pool of them, a cluster. Correctness does not rest on it: the store's does.

    A future raises what the task raised, `WorkerDiedError`, or `NoWorkersError`.
    """

    @property
    def workers(self) -> int:
        """How many there are at the moment; twice as many tasks are submitted."""
        ...

    def submit(self, task: Task, *, singly: bool) -> Future[Outcome]:
        """Begin a task."""
        ...

    def close(self) -> None:
        """Let go of the workers, in the middle of whatever they do."""
        ...


class Here:
    """Runs tasks in this process, one after the other."""

    workers = 1

    def __init__(self, outfit: Outfit) -> None:
        self._worker = Worker(outfit)

    def submit(self, task: Task, *, singly: bool) -> Future[Outcome]:
        """Do it now."""
        future: Future[Outcome] = Future()
        try:
            future.set_result(self._worker.do(task, singly=singly))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Nothing is left running."""


class Pool:
    """Runs tasks in several processes of this machine, each with a model of its own."""

    def __init__(self, outfit: Outfit, workers: int) -> None:
        self.workers, self._outfit = workers, outfit
        self._pool = self._start()
        self._running: set[Future[Outcome]] = set()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self.workers, get_context("spawn"), _begin, (self._outfit,))

    def submit(self, task: Task, *, singly: bool) -> Future[Outcome]:
        """Hand it to the next free process."""
        told: Future[Outcome] = Future()
        try:
            inner = self._pool.submit(_run, task, singly)
        except BrokenProcessPool:
            self._pool.shutdown(wait=False)
            self._pool = self._start()
            inner = self._pool.submit(_run, task, singly)

        self._running.add(inner)

        def tell(done: Future[Outcome]) -> None:
            self._running.discard(done)
            error = done.exception()
            if isinstance(error, BrokenProcessPool):
                told.set_exception(WorkerDiedError(str(error)))
            elif error is not None:
                told.set_exception(error)
            else:
                told.set_result(done.result())

        inner.add_done_callback(tell)
        return told

    def close(self) -> None:
        """End the processes; what they have not committed is made again next time."""
        if self._running:
            for process in list((getattr(self._pool, "_processes", None) or {}).values()):
                process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)


_worker: Worker | None = None


def _begin(outfit: Outfit) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's, which ends us
    leave_with_parent()
    quiet_bars()
    _worker = Worker(outfit)


def leave_with_parent() -> None:
    """End this process when the one that started it is gone, however that went: nobody else would."""
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _run(task: Task, singly: bool) -> Outcome:
    assert _worker is not None
    return _worker.do(task, singly=singly)


@dataclass
class _Turn:
    task: Task
    tries: int = 0
    deaths: int = 0


def drive(
    tasks: Iterable[Task],
    executor: Executor,
    *,
    on_done: Callable[[Outcome], None],
    on_failure: Callable[[Task, dict[str, str]], None],
) -> None:
    """Have all tasks done.

    Args:
        tasks: in this order, as far as workers are free.
        executor: who does them.
        on_done: told what came of each.
        on_failure: told which samples are given up, and why, each once.

    Raises:
        OSError: the disk is full or read-only; nothing that was committed is lost.
        RuntimeError: nothing works: the first tasks all failed, or there are no workers.
    """
    fresh = (_Turn(task) for task in tasks)
    again: deque[_Turn] = deque()
    suspects: deque[_Turn] = deque()
    flying: dict[Future[Outcome], _Turn] = {}
    finished: queue.SimpleQueue[Future[Outcome]] = queue.SimpleQueue()
    succeeded, given_up = 0, 0

    def next_turn() -> _Turn | None:
        # One that may have killed its worker runs alone, so that no other is taken for guilty.
        if suspects:
            return None if flying else suspects.popleft()
        if len(flying) >= 2 * executor.workers:
            return None
        return again.popleft() if again else next(fresh, None)

    def give_up(turn: _Turn, reasons: dict[str, str]) -> None:
        nonlocal given_up
        given_up += 1
        on_failure(turn.task, reasons)
        if not succeeded and given_up >= TRIES:
            reason = next(iter(reasons.values())).strip().splitlines()[-1]
            raise RuntimeError(f"study: the first {given_up} units all failed, the last one with: {reason}")

    while True:
        while (turn := next_turn()) is not None:
            future = executor.submit(turn.task, singly=turn.tries == TRIES - 1)
            flying[future] = turn
            future.add_done_callback(finished.put)
        if not flying:
            return
        try:
            future = finished.get(timeout=LOOK)
        except queue.Empty:
            continue  # there may be more workers by now
        turn, error = flying.pop(future), future.exception()
        if error is None:
            outcome = future.result()
            if outcome.failed:
                give_up(turn, dict(outcome.failed))
            succeeded += bool(outcome.samples)
            on_done(outcome)
        elif isinstance(error, WorkerDiedError):
            turn.deaths += 1
            if turn.deaths < TRIES:
                (again if error.alone else suspects).append(turn)
            else:
                give_up(turn, _all(turn.task, f"the worker died {TRIES} times: killed, or out of memory"))
        elif isinstance(error, NoWorkersError) or (isinstance(error, OSError) and error.errno in _DISK):
            raise error
        else:
            turn.tries += 1
            if turn.tries < TRIES:
                again.appendleft(turn)
            else:
                give_up(turn, _all(turn.task, "".join(traceback.format_exception(error))))


def _all(task: Task, reason: str) -> dict[str, str]:
    return dict.fromkeys(task.sample_ids, reason)


@contextmanager
def closing(executor: Executor) -> Iterator[Executor]:
    """An executor that is closed at the end, however that comes."""
    try:
        yield executor
    finally:
        executor.close()
