"""Studies on a real Ray cluster: nodes and drivers come and go, and the results are those of one process."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from typer.testing import CliRunner

from symskew.cli.study import app
from symskew.study import Store, run_study
from symskew.study.cluster import Cluster, connect
from symskew.study.engine import NoWorkersError
from symskew.study.verify import verify
from symskew.study.work import Outfit
from tinycluster import TOO_LONG, Told, begun, drive_all, join, nodes_of_ray, until
from tinystudy import ONE, tiny_model, tiny_study

RUNS = [{"prompts": "held-out", "seeds": "eval", "settings": "static", "diagnose": {"features": 8}},
        {"prompts": "tuning", "settings": "vanilla"}]  # fmt: skip


@pytest.fixture(scope="module")
def nodes():
    with nodes_of_ray() as some:
        join(some)
        yield some


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return tiny_study(tiny_model(tmp_path_factory.mktemp("model")), runs=RUNS, chunk=2)


@pytest.fixture(scope="module")
def done(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "here"
    run_study(study, folder, ONE)
    return folder


def files(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*.parquet"))


def outfit(folder):
    return Outfit(folder, "none", "float32", "cpu", 1, 1, {})


def test_a_node_dies_in_the_middle_of_a_task_and_another_joins(nodes, tmp_path):
    (first,) = nodes.worker_nodes

    def story():
        until(lambda: begun(tmp_path, "a") and begun(tmp_path, "b"))
        victim, other = ("a", "b") if begun(tmp_path, "a") == [first.node_id] else ("b", "a")
        assert begun(tmp_path, victim) == [first.node_id] != begun(tmp_path, other)
        nodes.remove_node(first, allow_graceful=False)
        second = join(nodes)
        # The node that was there before is held by the other task, so what begins now does so on the one that joined.
        until(lambda: begun(tmp_path, victim)[1:] or begun(tmp_path, "c"))
        assert second.node_id in begun(tmp_path, victim) + begun(tmp_path, "c")
        for name in (victim, other):
            (tmp_path / f"{name}.go").touch()

    tasks = [Told("a", held=True), Told("b", held=True), Told("c"), Told("d")]
    assert drive_all(tasks, Cluster(outfit(tmp_path)), story) == (["a", "b", "c", "d"], {})
    assert sorted(len(begun(tmp_path, name)) for name in "ab") == [1, 2]
    assert [len(begun(tmp_path, name)) for name in "cd"] == [1, 1]
    assert Store(tmp_path).done("samples") == {"told": {"a", "b", "c", "d"}}


def test_what_cannot_be_done_is_given_up_after_three_tries_and_nothing_else(nodes, tmp_path):
    tasks = [Told("a"), Told("raises", does="raises"), Told("kills", does="kills"), Told("b", loads="an extractor")]
    finished, lost = drive_all(tasks, Cluster(outfit(tmp_path), workers=1))
    assert finished == ["a", "b"]
    assert lost.keys() == {"raises", "kills"}
    assert lost["raises"].strip().endswith("UnsendableError: cannot be done")
    assert "died 3 times" in lost["kills"]
    assert len(begun(tmp_path, "raises")) == len(begun(tmp_path, "kills")) == 3


def test_actors_of_an_offline_driver_are_offline(nodes, tmp_path):
    """They are no children of the driver, so its environment is not theirs."""
    tasks = [Told("a"), Told("connects", does="connects")]
    finished, lost = drive_all(tasks, Cluster(replace(outfit(tmp_path), offline=True)))
    assert finished == ["a"]
    assert "symskew: offline, and something tried to connect to 192.0.2.1" in lost["connects"]


def test_an_offline_driver_reaches_no_cluster_at_another_address(monkeypatch):
    monkeypatch.setenv("SYMSKEW_OFFLINE", "1")
    for address in ("192.0.2.1:6379", "localhost.example.com:6379"):
        with pytest.raises(ValueError, match=f"loopback .* the Ray cluster is at {address[:-5]}; run without --off"):
            connect(address)


def test_scorers_share_a_gpu_that_one_generator_has_alone(nodes, tmp_path):
    # Ray believes that there is a GPU, and no task here looks for it.
    there = join(nodes, num_cpus=2, num_gpus=1)
    cluster = Cluster(replace(outfit(tmp_path), threads=None), device="cuda", scorer_gpus=0.5)

    def story():
        until(lambda: begun(tmp_path, "generates"))
        until(lambda: not ray.available_resources().get("GPU"))
        (tmp_path / "generates.go").touch()
        until(lambda: begun(tmp_path, "scores") and begun(tmp_path, "too"))
        assert cluster.workers == 2
        for name in ("scores", "too"):
            (tmp_path / f"{name}.go").touch()

    tasks = [Told("generates", held=True), *(Told(name, held=True, loads="a scorer") for name in ("scores", "too"))]
    assert drive_all(tasks, cluster, story) == (["generates", "scores", "too"], {})
    assert {where for task in tasks for where in begun(tmp_path, task.id)} == {there.node_id}
    nodes.remove_node(there)


def test_workers_that_do_not_see_the_folder_get_no_tasks(nodes, tmp_path):
    cluster = Cluster(outfit(tmp_path), workers=1)
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(NoWorkersError, match=f"a node cannot be used: FileNotFoundError.*need one folder {tmp_path}"):
        drive_all([Told("a")], cluster)
    assert not list(tmp_path.iterdir())


def test_a_driver_is_killed_and_two_race_to_go_on_while_nodes_die_and_join(nodes, study, done, tmp_path):
    (tmp_path / "tiny.yaml").write_text(study.text())
    folder = tmp_path / "run"
    command = [Path(sys.executable).with_name("symskew"), "study", "run", tmp_path / "tiny.yaml", "--out", folder]
    command += ["--batch-size", "2", "--workers", "1", "--quiet", "--ray"]
    killed = subprocess.Popen([*command, nodes.address])
    until(lambda: killed.poll() is not None or list(folder.glob("samples/*/*.parquet")))
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    before = verify(folder)
    assert before.sound
    assert before.samples < 20

    racing = [subprocess.Popen(command, env=os.environ | {"RAY_ADDRESS": nodes.address}) for _ in range(2)]
    until(lambda: any(each.poll() is not None for each in racing) or verify(folder).samples > before.samples)
    nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
    join(nodes)
    assert [each.wait(TOO_LONG) for each in racing] == [0, 0]
    found = verify(folder, repair=True)
    assert found.sound
    assert (found.samples, found.digest) == (20, verify(done).digest)
    assert files(folder) == files(done)


def test_a_run_with_nothing_left_asks_for_no_workers(nodes, study, done):
    ledger = run_study(study, done, ONE, executor=Cluster)
    assert (ledger.there, ledger.done, ledger.scored) == (20, 0, 0)


def test_what_makes_no_sense_is_refused(nodes, tmp_path):
    with pytest.raises(ValueError, match="give host:port instead of ray://there"):
        connect("ray://there")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ValueError, match=f"no Ray cluster at {address}: .*refused; `ray start --head` starts one"):
        connect(address)
    with pytest.raises(ValueError, match="share of a GPU must be above 0 and at most 1, got 2"):
        Cluster(outfit(tmp_path), scorer_gpus=2)
    with pytest.raises(ValueError, match=r"workers are on cuda and the driver on cpu.*write dtype"):
        Cluster(replace(outfit(tmp_path), dtype="auto"), device="cuda")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("written", "meant"),
    [(["--ray"], "auto"), (["--ray", "--quiet"], "auto"), (["--ray", "head:6379", "-q"], "head:6379")],
)
def test_the_address_may_be_left_out(study, tmp_path, monkeypatch, written, meant):
    def refuse(address):
        raise ValueError(f"asked for {address}")

    (tmp_path / "tiny.yaml").write_text(study.text())
    monkeypatch.setattr("symskew.study.cluster.connect", refuse)
    found = CliRunner().invoke(app, ["run", str(tmp_path / "tiny.yaml"), *written])
    assert found.exit_code == 2
    assert f"asked for {meant}" in found.stderr
