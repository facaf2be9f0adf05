"""What can go wrong while a study runs: nothing is lost, nothing is there twice, and damage is found and named."""

import errno
import multiprocessing
import os
import queue
import random
import shutil
import signal
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pytest

from symskew.study import Store, run_study
from symskew.study.engine import TRIES, WorkerDiedError, drive, leave_with_parent
from symskew.study.frames import Results
from symskew.study.verify import verify
from symskew.study.work import Outcome, Outfit, Worker
from tinystudy import ONE, tiny_model, tiny_study

fork = multiprocessing.get_context("forkserver")
fork.set_forkserver_preload(["symskew.study", "symskew.metrics", "diffusers", "pyarrow.parquet", "pandas"])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def done(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "tiny"
    run_study(small(model), folder, ONE)
    return folder


def small(model):
    runs = [{"prompts": "held-out", "seeds": "eval", "settings": "static", "diagnose": {"features": 8}},
            {"prompts": "tuning", "settings": "vanilla"}]  # fmt: skip
    return tiny_study(model, runs=runs, chunk=2)


def run_small(model, folder, order=0):
    # Two runs that race take turns: each begins with another unit.
    import symskew.study.run as module

    random.seed(order)
    plain = module.remaining
    module.remaining = lambda *args, **named: sorted(plain(*args, **named), key=lambda _: random.random())
    run_study(small(model), folder, ONE)


def start(model, folder, order=0):
    process = fork.Process(target=run_small, args=(model, folder, order))
    process.start()
    return process


def shards(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*.parquet"))


def sound(folder, done):
    found = verify(folder)
    assert found.sound, found
    assert found.digest == verify(done).digest
    assert found.samples == len(Results.of(folder).frame) == 20
    return found


def test_killed_at_random_moments_again_and_again(model, done, tmp_path):
    folder, chance = tmp_path / "run", random.Random(0)
    killed = 0
    for _ in range(4):
        process = start(model, folder)
        wanted = len(shards(folder)) + chance.randrange(1, 8)
        while process.is_alive() and len(shards(folder)) < wanted:
            time.sleep(0.005)
        time.sleep(chance.random() * 0.1)
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
            killed += 1
        process.join()
        if folder.exists():
            assert verify(folder).sound
    assert killed >= 2
    run_small(model, folder)
    sound(folder, done)


def test_two_runs_racing_on_one_folder(model, done, tmp_path):
    folder = tmp_path / "run"
    both = [start(model, folder, order) for order in (1, 2)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    sound(folder, done)


@pytest.mark.parametrize("table", ["samples", "measures", "scores", "features"])
def test_a_truncated_file_is_named_put_aside_and_made_again(model, done, tmp_path, table):
    folder = shutil.copytree(done, tmp_path / "run")
    victim = next(Store(folder).files(table))
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    found = verify(folder)
    assert list(found.damaged) == [victim]
    assert str(victim) in found.damaged[victim]
    verify(folder, repair=True)
    assert (folder / "damaged" / victim.relative_to(folder)).exists()
    run_study(small(model), folder, ONE)
    sound(folder, done)


def test_any_flipped_byte_of_an_image_or_a_number_is_found(done, tmp_path):
    folder = shutil.copytree(done, tmp_path / "run")
    chance = random.Random(1)
    for table in ("samples", "scores", "measures"):
        victim = next(Store(folder).files(table))
        whole = bytearray(victim.read_bytes())
        footer = int.from_bytes(whole[-8:-4], "little") + 8
        for _ in range(25):
            place = chance.randrange(4, len(whole) - footer)
            whole[place] ^= 0x10
            victim.write_bytes(whole)
            assert victim in verify(folder).damaged, f"byte {place} of {table}"
            whole[place] ^= 0x10
        victim.write_bytes(whole)
    assert verify(folder).sound


def test_a_sample_that_is_there_twice_or_not_what_it_says_is_found(done, tmp_path):
    folder = shutil.copytree(done, tmp_path / "run")
    first = next(Store(folder).files("samples"))
    shutil.copy(first, first.with_name("0" * 16 + ".parquet"))
    assert len(verify(folder).twice) == len(Store(folder).read("samples", first.parent.name, first.stem))
    first.with_name("0" * 16 + ".parquet").unlink()
    other = next(path for path in Store(folder).files("samples") if path.parent != first.parent)
    shutil.move(first, other.with_name(first.name))
    assert list(verify(folder).damaged) == [other.with_name(first.name)]


def test_a_full_disk_stops_the_run_and_loses_nothing(model, done, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    import symskew.study.store as store

    plain, written = store.write_durably, []

    def write(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) > 12:
            path.write_bytes(data[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(path, data)

    monkeypatch.setattr(store, "write_durably", write)
    with pytest.raises(OSError, match="No space left"):
        run_study(small(model), folder, ONE)
    found = verify(folder)
    assert found.sound
    assert not found.leftovers
    kept = found.samples
    monkeypatch.setattr(store, "write_durably", plain)
    ledger = run_study(small(model), folder, ONE)
    assert ledger.done == 20 - kept
    sound(folder, done)


def test_what_an_interrupted_write_left_is_found_and_deleted(done, tmp_path):
    folder = shutil.copytree(done, tmp_path / "run")
    path = next(Store(folder).files("samples"))
    left = path.with_name(f".{path.name}.1.2.tmp")
    left.write_bytes(b"half")
    found = verify(folder, repair=True)
    assert found.sound
    assert found.leftovers == [left]
    assert not left.exists()


def test_a_sample_that_cannot_be_made_is_given_up_alone_and_can_be_tried_again(model, tmp_path, monkeypatch):
    import symskew.study.generating as generating

    plain = generating.generate

    def fail(pipe, requests, **options):
        if any(request.prompt == "a blue seven" and request.seed == 1 for request in requests):
            raise RuntimeError("cannot draw this")
        return plain(pipe, requests, **options)

    monkeypatch.setattr(generating, "generate", fail)
    folder = tmp_path / "run"
    ledger = run_study(small(model), folder, ONE)
    assert (ledger.done, ledger.given_up) == (19, 1)
    assert "cannot draw this" in ledger.failures[0]
    assert run_study(small(model), folder, ONE).left == 0
    monkeypatch.setattr(generating, "generate", plain)
    from dataclasses import replace

    assert run_study(small(model), folder, replace(ONE, retry=True)).done == 1
    assert verify(folder).sound
    assert verify(folder).samples == 20


def test_when_nothing_works_the_run_stops_with_the_reason(model, tmp_path, monkeypatch):
    import symskew.study.generating as generating

    monkeypatch.setattr(generating, "generate", lambda *_, **__: 1 / 0)
    with pytest.raises(RuntimeError, match="the first 3 units all failed, the last one with: ZeroDivisionError"):
        run_study(small(model), tmp_path / "run", ONE)


def test_a_folder_that_is_no_study(tmp_path):
    with pytest.raises(ValueError, match="is no folder of a study; symskew study run"):
        verify(tmp_path)
    with pytest.raises(ValueError, match="is no folder of a study"):
        Results.of(tmp_path / "none")


class Killer:
    """An executor in which a deadly task takes everything down that runs beside it."""

    workers = 2

    def __init__(self, deadly):
        self.deadly, self.flying = deadly, queue.SimpleQueue()
        threading.Thread(target=self.work, daemon=True).start()

    def submit(self, task, *, singly):
        future = Future()
        self.flying.put((task.id, future))
        return future

    def work(self):
        while True:
            some = [self.flying.get()]
            while not self.flying.empty():
                some.append(self.flying.get())
            dead = any(name in self.deadly for name, _ in some)
            for name, future in some:
                if dead:
                    future.set_exception(WorkerDiedError("killed"))
                else:
                    future.set_result(Outcome(name, 1, 0.0, 0.0))

    def close(self):
        pass


def test_who_kills_workers_is_found_out_and_the_others_are_done():
    names = ["a", "bad", "c", "d", "e"]
    tasks: Any = [SimpleNamespace(id=name, sample_ids=[name]) for name in names]
    finished: list[str] = []
    lost: dict[str, str] = {}
    drive(tasks, Killer({"bad"}), on_done=lambda outcome: finished.append(outcome.task),
          on_failure=lambda _, reasons: lost.update(reasons))  # fmt: skip
    assert sorted(finished) == ["a", "c", "d", "e"]
    assert list(lost) == ["bad"]
    assert f"died {TRIES} times" in lost["bad"]


class Growing:
    """An executor that gets a second worker while all it has is at work, and then finishes."""

    def __init__(self):
        self.looks, self.flying = 0, []

    @property
    def workers(self):
        self.looks += 1
        assert self.looks < 100, "nobody uses the second worker"
        return 1 + (self.looks > 5)

    def submit(self, task, *, singly):
        self.flying.append((task, Future()))
        future = self.flying[-1][1]
        if len(self.flying) == 4:
            for each, told in self.flying:
                told.set_result(Outcome(each.id, 1, 0.0, 0.0))
        return future

    def close(self):
        pass


def test_workers_that_come_while_all_others_are_busy_get_tasks(monkeypatch):
    monkeypatch.setattr("symskew.study.engine.LOOK", 0.01)
    tasks: Any = [SimpleNamespace(id=name, sample_ids=[name]) for name in "abcd"]
    finished: list[str] = []
    drive(tasks, Growing(), on_done=lambda outcome: finished.append(outcome.task), on_failure=lambda *_: None)
    assert finished == list("abcd")


def test_what_another_run_did_meanwhile_is_not_done_again(tmp_path):
    there: Any = SimpleNamespace(id="a", is_done=lambda store: store.folder == tmp_path)
    outcome = Worker(Outfit(tmp_path, "none", "float32", "cpu", 1, None, {})).do(there, singly=False)
    assert outcome == Outcome("a", 0, 0.0, 0.0)


def wait_for_ever(said):
    leave_with_parent()
    said.put(os.getpid())
    time.sleep(600)


def start_a_worker(said):
    multiprocessing.get_context("fork").Process(target=wait_for_ever, args=(said,)).start()
    time.sleep(600)


def test_workers_end_with_a_driver_that_is_killed():
    said = fork.SimpleQueue()
    driver = fork.Process(target=start_a_worker, args=(said,))
    driver.start()
    worker = said.get()
    os.kill(driver.pid or 0, signal.SIGKILL)
    for _ in range(2000):
        if not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text().split()[2]:
            return
        time.sleep(0.01)
    pytest.fail("the worker lives on")


def test_the_first_to_commit_stays(tmp_path):
    store = Store(tmp_path)
    assert store.commit(pyarrow.table({"sample_id": ["a"]}), "samples", "one", "unit")
    assert not store.commit(pyarrow.table({"sample_id": ["b"]}), "samples", "one", "unit")
    assert store.read("samples", "one", "unit")["sample_id"].to_pylist() == ["a"]
