"""The exact settings of an image as plain values: what is written into it, read back, and hashed to name it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from typing import Any

from symskew.baselines import Baseline
from symskew.circulate import Circulation
from symskew.generation.request import Request, complete
from symskew.models import Model


def describe_request(model: Model, request: Request) -> dict[str, Any]:
    """All that changes the image of a request, as plain values for JSON; what changes nothing is left out."""
    request = complete(model, request)
    scheduler = model.pipe.scheduler
    settings: dict[str, Any] = {
        "model": model.files.name,
        "revision": model.files.revision,
        "prompt": request.prompt,
        "negative": request.negative,
        "seed": request.seed,
        "steps": request.steps,
        "guidance": None if request.guidance is None else float(request.guidance),
        "size": list(request.size or ()),
        "dtype": model.dtype,
        "scheduler": {"name": type(scheduler).__name__, "config": _config_hash(scheduler)},
    }
    if request.arguments:
        settings["arguments"] = dict(request.arguments)
    if not request.circulation.is_identity:
        settings["circulation"] = _plain(request.circulation.to_dict())
        settings["layers"] = _plain(request.layers)
        settings["start"], settings["stop"] = float(request.start), float(request.stop)
    if request.baseline is not None:
        settings["baseline"] = _plain(request.baseline.to_dict())
    return settings


def request_of(record: dict[str, Any]) -> Request:
    """The request that a record describes: the inverse of `describe_request`.

    Raises:
        ValueError: settings that are none.
    """
    layers = record.get("layers")
    kinds = {"prompt": str, "seed": int, "steps": int, "negative": str | None, "arguments": dict | None}
    for name, kind in kinds.items():
        if not isinstance(record.get(name), kind):
            raise ValueError(f"these are no settings of an image: {name} is {record.get(name)!r}")
    try:
        return Request(
            record["prompt"],
            record["seed"],
            Circulation.from_dict(record.get("circulation", {})),
            layers if layers is None or isinstance(layers, str) else tuple(map(_tuple, layers)),
            record.get("start", 0.0),
            record.get("stop", 1.0),
            record["steps"],
            record.get("guidance"),
            record.get("negative"),
            (record["size"][0], record["size"][1]),
            Baseline.from_dict(record["baseline"]) if "baseline" in record else None,
            record.get("arguments") or {},
        )
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"these are no settings of an image: {error!r}") from error


def settings_id(settings: dict[str, Any]) -> str:
    """The hash of settings, 16 hexadecimal digits; a model is known by its weights, not by its name or place."""
    exact = {name: value for name, value in settings.items() if name != "model"}
    return hashlib.sha256(json.dumps(exact, sort_keys=True).encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """The versions of everything that takes part in computing an image."""
    names = ("symskew", "torch", "diffusers", "transformers")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def _config_hash(scheduler: Any) -> str:
    # Defaults that came with a later version of diffusers are not the model's own settings.
    config = dict(scheduler.config)
    ignored = set(config.get("_use_default_values", ()))
    own = {name: value for name, value in config.items() if not name.startswith("_") and name not in ignored}
    return hashlib.sha256(json.dumps(own, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _plain(value: Any) -> Any:
    # One spelling for each setting, since its hash names the image: 2 and 2.0 are the same control.
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
