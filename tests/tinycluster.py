"""A Ray cluster of several nodes on this machine, and tasks whose moments a test decides."""

import logging
import os
import signal
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow
import ray
from ray.cluster_utils import Cluster as Nodes

from symskew.study.cluster import Cluster
from symskew.study.engine import closing, drive
from symskew.study.work import MODEL, Outcome

TOO_LONG = 900
"""Seconds after which something is taken not to happen any more."""


@contextmanager
def nodes_of_ray() -> Iterator[Nodes]:
    """A cluster whose first node has one CPU; this process is a driver of it."""
    environment = {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # A busy machine starts processes slowly, and answers slowly; but a node that is gone refuses at once.
        "RAY_agent_register_timeout_ms": "600000",
        "RAY_worker_niceness": "0",
        "RAY_health_check_timeout_ms": "60000",
        "RAY_health_check_period_ms": "500",
    }
    with (
        patch.dict(os.environ, environment),
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as t,
    ):
        session = Path(t, "session_of_tests")
        head = {"include_dashboard": False, "temp_dir": t, "session_name": session.name}
        nodes = Nodes(initialize_head=True, head_node_args=head | node(session))
        try:
            ray.init(nodes.address, log_to_driver=False, logging_level=logging.ERROR)
            yield nodes
        finally:
            ray.shutdown()
            nodes.shutdown()


def join(nodes: Nodes, **more: Any) -> Any:
    """One more node of one CPU, or with more."""
    assert nodes.head_node is not None
    return nodes.add_node(**(node(Path(nodes.head_node.get_session_dir_path())) | more))


def node(session: Path) -> dict[str, Any]:
    """What a node of one CPU is started with.

    A node gives up (ray-project/ray#65983) if within 15 seconds its agents have not written down their ports, so this
    does: one is chosen here, the others are of services that there are not.
    """
    name = ray.NodeID.from_random().hex()
    session.mkdir(exist_ok=True)
    for service in ("metrics_agent", "metrics_export", "dashboard_agent_listen"):
        (session / f"{service}_port_{name}").write_text("-1")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return {
        "num_cpus": 1,
        "object_store_memory": 80 << 20,
        "runtime_env_agent_port": port,
        "env_vars": {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": name},
    }


def drive_all(
    tasks: Iterable[Any], cluster: Cluster, story: Callable[[], None] = lambda: None
) -> tuple[list[str], dict[str, str]]:
    """Which tasks were done, and which samples given up and why; meanwhile, a story happens in this thread."""
    finished: list[str] = []
    lost: dict[str, str] = {}
    failed: list[BaseException] = []

    def run() -> None:
        try:
            with closing(cluster):
                drive(tasks, cluster, on_done=lambda outcome: finished.append(outcome.task),
                      on_failure=lambda _, reasons: lost.update(reasons))  # fmt: skip
        except BaseException as error:
            failed.append(error)

    driver = threading.Thread(target=run, daemon=True)
    driver.start()
    try:
        story()
        driver.join(TOO_LONG)
    finally:
        if driver.is_alive():
            cluster._events.put(lambda: cluster._stop("the test stops it"))
            driver.join(TOO_LONG)
    if failed:
        raise failed[0]
    return sorted(finished), lost


def until(happens: Callable[[], Any]) -> Any:
    """Wait for something, however long it takes on a busy machine."""
    end = time.monotonic() + TOO_LONG
    while not (found := happens()):
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.05)
    return found


class UnsendableError(Exception):
    """Its like are in many libraries: pickled well enough, and impossible to read."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)


@dataclass(frozen=True)
class Told:
    """Does as it is told: it is `held` until a file is there, then it "works", "raises", "connects" or "kills"
    its process.

    Each time it begins, there is a file `<id>.<node>.<any>.began`.
    """

    id: str
    does: str = "works"
    held: bool = False
    loads: str = MODEL

    @property
    def sample_ids(self) -> list[str]:
        return [self.id]

    def is_done(self, store) -> bool:
        return store.has("samples", "told", self.id)

    def run(self, worker, *, singly: bool) -> Outcome:
        folder = worker.store.folder
        (folder / f"{self.id}.{ray.get_runtime_context().get_node_id()}.{uuid.uuid4().hex}.began").touch()
        if self.held:
            until((folder / f"{self.id}.go").exists)
        if self.does == "raises":
            raise UnsendableError(reason="cannot be done")
        if self.does == "connects":
            socket.create_connection(("192.0.2.1", 80), timeout=5)
        if self.does == "kills":
            os.kill(os.getpid(), signal.SIGKILL)
        worker.store.commit(pyarrow.table({"sample_id": [self.id]}), "samples", "told", self.id)
        return Outcome(self.id, 1, 0.0, 0.0)


def begun(folder: Path, name: str) -> list[str]:
    """On which nodes a task has begun, once for each time."""
    return [path.name.split(".")[1] for path in folder.glob(f"{name}.*.began")]
