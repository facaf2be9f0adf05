"""Experiment trackers as optional sinks: how a run goes and what came of it, in TensorBoard, MLflow, W&B or trackio.

A tracker gets numbers and never gives any: the folder of a study stays the one place of its results, and a tracker that
fails in mid-run is let go of with a warning, while the run goes on.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from symskew.study.definition import Study
from symskew.study.frames import Results
from symskew.study.run import Ledger
from symskew.table import need

EVERY = 5.0
"""Seconds between two points of a curve, at least."""


class Tracker(Protocol):
    """A sink of numbers; made before work starts, so that what it lacks is an error then."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers by name, at a step that never falls."""
        ...

    def close(self) -> None:
        """The run is over."""
        ...


class TensorBoard:
    """Event files in a folder; `tensorboard --logdir` shows them."""

    def __init__(self, name: str, config: Mapping[str, Any], folder: Path) -> None:
        need("tensorboard", "tensorboard")
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(str(folder))
        lines = [f"- {key}: {value}" for key, value in {"name": name, **config}.items()]
        self._writer.add_text("study", "\n".join(lines))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """As scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()


class WandB:
    """A run of W&B, or of trackio, which has the same interface; both take their settings from the environment."""

    def __init__(self, library: str, name: str, config: Mapping[str, Any]) -> None:
        # Both have one run at a time in a process, which their module stands for.
        self._api = need(library, library)
        self._api.init(project="symskew", name=name, config=dict(config))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """As metrics."""
        self._api.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._api.finish()


class MLflow:
    """A run of the experiment “symskew”, on the server or in the folder that $MLFLOW_TRACKING_URI names."""

    def __init__(self, name: str, config: Mapping[str, Any]) -> None:
        # Through the client, so that a run that a caller may have open stays as it is.
        self._client = need("mlflow", "mlflow").MlflowClient()
        found = self._client.get_experiment_by_name("symskew")
        experiment = found.experiment_id if found else self._client.create_experiment("symskew")
        self._run = self._client.create_run(experiment, run_name=name).info.run_id
        for key, value in config.items():
            self._client.log_param(self._run, key, value)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """As metrics; letters that MLflow does not take become hyphens."""
        for name, value in values.items():
            self._client.log_metric(self._run, re.sub(r"[^A-Za-z0-9_./ -]", "-", name), value, step=step)

    def close(self) -> None:
        """The run is finished."""
        self._client.set_terminated(self._run)


TRACKERS = ("tensorboard", "wandb", "trackio", "mlflow")


def open_tracker(kind: str, study: Study, folder: Path) -> Tracker:
    """A tracker by name, for a study whose results go to a folder.

    Raises:
        ValueError: an unknown name, or a tracker that does not begin: no account, no server.
        ImportError: its package is not installed; says how to.
    """
    config = {"model": study.model, "settings": len(study.settings), "folder": str(folder)}
    if kind not in TRACKERS:
        raise ValueError(f"a tracker must be one of {', '.join(TRACKERS)}, got {kind!r}")
    try:
        if kind == "tensorboard":
            return TensorBoard(study.name, config, folder.with_name(f"{folder.name}-tensorboard"))
        if kind == "mlflow":
            return MLflow(study.name, config)
        return WandB(kind, study.name, config)
    except ImportError:
        raise
    except Exception as error:  # each has its own
        raise ValueError(f"{kind} does not begin: {' '.join(str(error).split())}") from error


class Reports:
    """What a run tells its trackers: samples done, rate and failures on the way; the means of settings at the end.

    Example:
        >>> reports = Reports([open_tracker("tensorboard", study, folder)], folder)  # doctest: +SKIP
        >>> run_study(study, folder, on_progress=reports.tell)  # doctest: +SKIP
        >>> reports.close()  # doctest: +SKIP
    """

    def __init__(self, trackers: list[Tracker], folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._trackers, self._folder, self._clock = list(trackers), folder, clock
        self._began, self._told = clock(), float("-inf")

    def tell(self, ledger: Ledger) -> None:
        """How things stand now; for `run_study`'s `on_progress`."""
        now, last = self._clock(), ledger.stage == "done"
        if not self._trackers or (now - self._told < EVERY and not last):
            return
        self._told = now
        step = ledger.there + ledger.done
        values: dict[str, float] = {
            "run/generated": step, "run/planned": ledger.planned, "run/scored": ledger.scored,
            "run/given up": ledger.given_up,
        }  # fmt: skip
        if ledger.done:
            values["run/samples a second"] = ledger.done / max(now - self._began, 1e-9)
        self._log(values | (means(Results.of(self._folder)) if last else {}), step)

    def close(self) -> None:
        """Close all trackers."""
        for tracker in self._trackers:
            self._safely(tracker, tracker.close)

    def _log(self, values: Mapping[str, float], step: int) -> None:
        for tracker in list(self._trackers):
            self._safely(tracker, lambda tracker=tracker: tracker.log(values, step))

    def _safely(self, tracker: Tracker, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # whatever a service may raise: a run of days must not end for it
            self._trackers = [each for each in self._trackers if each is not tracker]
            warnings.warn(f"the tracker {type(tracker).__name__} is let go of, the run goes on: {error}", stacklevel=2)


def means(results: Results) -> dict[str, float]:
    """The mean of every metric under every setting, over its samples for evaluation, by `metric/setting`.

    For watching only: tables have intervals, and compare the same prompts and seeds.
    """
    frame = results.frame
    metrics = [name for name in results.metrics["metric"] if name in frame]
    if not metrics or frame.empty:
        return {}
    found = frame[frame["role"] == "eval"].groupby("setting")[metrics].mean()
    return {
        f"{metric}/{setting}": float(value)
        for metric in metrics
        for setting, value in found[metric].items()
        if value == value
    }
