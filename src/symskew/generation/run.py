"""From requests to images: one at a time for the caller, in batches for the machine, each exactly repeatable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image

from symskew.attach import control
from symskew.diagnose import diagnose as diagnosing
from symskew.generation.request import Request, arguments_of, check, complete
from symskew.generation.settings import describe_request, request_of, settings_id, versions
from symskew.models import Model
from symskew.record import Record


@dataclass(frozen=True, eq=False)
class Result:
    """An image, and what made it.

    Attributes:
        image: as the pipeline returned it.
        settings: all that changes the image, as plain values; `id` is their hash.
        seconds: its share of the time its batch took.
        run: how it was computed: device, number of images in its batch and its place there. In theory none of it
            changes an image; in practice the last bits of floating-point sums, so `repeat` keeps to it.
        diagnosis: what was measured while its batch was generated, if it was; `sample=run["place"]` picks this image.
    """

    image: Image.Image
    settings: dict[str, Any]
    seconds: float
    run: dict[str, Any]
    diagnosis: Record | None = None

    @property
    def id(self) -> str:
        """The hash of the settings, 16 hexadecimal digits."""
        return settings_id(self.settings)

    def record(self) -> dict[str, Any]:
        """All there is to know, for the image's file: id, settings, run, and versions of what computed it."""
        return {"id": self.id, **self.settings, "run": self.run, "versions": versions()}


def generate(
    model: Model,
    requests: Sequence[Request],
    *,
    batch: int = 4,
    on_step: Callable[[float], None] | None = None,
    diagnose: Mapping[str, Any] | None = None,
) -> Iterator[Result]:
    """Generate what is asked for, yielding each image as soon as its batch is done.

    Requests that differ in prompt and seed only share a batch, so results do not come in the order of the requests;
    `Result.settings` says which is which. A control that adapts to the whole call gets batches of one, since an image
    would depend on the others otherwise.

    Args:
        model: from `load_model`.
        requests: duplicates are generated once.
        batch: images at a time, at most.
        on_step: called after each step of a pipeline that allows it, with the part of an image's work done since.
        diagnose: settings of `symskew.diagnose` to measure every batch with, `{}` for the usual ones; the images stay
            the same, and `Result.diagnosis` is what was measured.

    Raises:
        TypeError, ValueError: before anything is generated: a request or diagnosis that cannot be met (see `check`).

    Example:
        >>> for result in generate(model, [Request("a red three", seed=s) for s in range(8)]):  # doctest: +SKIP
        ...     result.image.save(f"{result.id}.png")
    """
    requests = list({settings_id(describe_request(model, r)): complete(model, r) for r in requests}.values())
    check(model, requests, diagnose)
    if batch < 1:
        raise ValueError(f"generate: batch must be at least 1, got {batch}")

    def run() -> Iterator[Result]:
        for group in _batches(requests, batch):
            yield from _generate_batch(model, group, on_step, diagnose)

    return run()


def repeat(model: Model, record: dict[str, Any], on_step: Callable[[float], None] | None = None) -> Result:
    """Make the image of a record again, in a batch of the same size and at the same place in it."""
    request, run = request_of(record), record.get("run", {})
    batch = [complete(model, request)] * int(run.get("batch", 1))
    check(model, batch[:1])
    return list(_generate_batch(model, batch, on_step))[int(run.get("place", 0))]


def _batches(requests: Iterable[Request], most: int) -> Iterator[list[Request]]:
    waiting: dict[Request, list[Request]] = {}
    for request in requests:
        key = replace(request, prompt="", seed=0)
        group = waiting.setdefault(key, [])
        group.append(request)
        alone = request.circulation.adaptive == "call" or (request.baseline is not None and request.baseline.alone)
        if len(group) == (1 if alone else most):
            yield waiting.pop(key)
    yield from waiting.values()


def _generate_batch(
    model: Model,
    batch: list[Request],
    on_step: Callable[[float], None] | None,
    diagnose: Mapping[str, Any] | None = None,
) -> Iterator[Result]:
    first, reported = batch[0], 0.0
    began = time.perf_counter()
    with ExitStack() as stack:
        pipe, extra = model.pipe, {}
        if first.baseline is not None:
            pipe, extra = stack.enter_context(first.baseline.attach(pipe, [request.seed for request in batch]))
        arguments = _arguments(pipe, batch) | extra
        if on_step and "callback_on_step_end" in arguments_of(pipe):

            def report(*args: Any) -> dict[str, Any]:
                nonlocal reported
                part = len(batch) / max(getattr(pipe, "num_timesteps", first.steps or 1), 1)
                reported += part
                on_step(part)
                return args[-1]

            arguments["callback_on_step_end"] = report
        if not first.circulation.is_identity:
            where = {"layers": first.layers, "start": first.start, "stop": first.stop}
            stack.enter_context(control(pipe, first.circulation, **where))
        record = None if diagnose is None else stack.enter_context(diagnosing(pipe, **diagnose))
        images = pipe(**arguments).images
    seconds = (time.perf_counter() - began) / len(batch)
    if on_step:
        on_step(len(batch) - reported)
    for place, (request, image) in enumerate(zip(batch, images, strict=True)):
        run = {"device": model.device, "batch": len(batch), "place": place}
        yield Result(image, describe_request(model, request), seconds, run, record)


def _arguments(pipe: Any, batch: Sequence[Request]) -> dict[str, Any]:
    """What to call a pipeline with for a batch of requests, which differ in prompt and seed only."""
    first, accepted = batch[0], arguments_of(pipe)
    assert first.size is not None
    arguments: dict[str, Any] = {
        "prompt": [request.prompt for request in batch],
        "num_inference_steps": first.steps,
        "generator": [torch.Generator("cpu").manual_seed(request.seed) for request in batch],
        "output_type": "pil",
    }
    arguments |= dict(first.arguments)
    if first.guidance is not None:
        arguments["guidance_scale"] = float(first.guidance)
    if first.negative is not None:
        arguments["negative_prompt"] = [first.negative] * len(batch)
    if "width" in accepted and "height" in accepted:
        arguments["width"], arguments["height"] = first.size
    return arguments
