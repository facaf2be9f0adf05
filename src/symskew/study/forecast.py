"""What is left of a study and will cost: images, passes, operations, GPU hours, disk, from stated assumptions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from symskew.generation import Request, complete
from symskew.layers import find_denoisers, find_layers
from symskew.models import Model
from symskew.study.definition import Study
from symskew.study.plan import Unit, plan, remaining, setting_key
from symskew.study.run import passes
from symskew.study.scorers import metric_names
from symskew.study.scoring import scoring_tasks
from symskew.study.skeleton import Work, count_work
from symskew.study.store import Store

TERAFLOPS = 60.0
"""Assumed of a GPU, in 10¹² operations a second, in half precision: what an RTX 4090 or an A100 reaches in practice."""
CONTROLLED = 4.0
"""A controlled layer costs at most 8 L²C multiply-adds more, four times those of vanilla attention: benchmarks."""
EXACT = 1.0
"""The exact norm, of the input features, costs 2 L²C multiply-adds more for each head: benchmarks."""
DIAGNOSED, DIAGNOSED_WHOLLY = 1.3, 1.75
"""How much longer a diagnosed pass takes with a subset of the features and with all, measured on a CPU: benchmarks."""
SCORING = 0.05
"""Assumed seconds for an image and an extractor of features."""
PIXEL, ROW, FEATURES = 1.5, 25.0, 4096
"""Bytes on disk: of a pixel as PNG, of a row of `measures` (measured), of an image's features for an extractor."""
UNKNOWN = Work(1e12, 1e11, 1e12, 0.0)
"""Of a pipeline whose operations are not known: only what its settings cost in proportion means anything."""
GIGA, HOUR = 1e9, 3600.0


def figure(number: float) -> str:
    """A cost to three digits, however small the model; whole from a hundred on.

    >>> figure(6.756), figure(0.00521), figure(1234.5)
    ('6.76', '0.00521', '1,234')
    """
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


@dataclass(frozen=True)
class Row:
    """What is left of a setting.

    Attributes:
        setting: its name.
        images: to be made.
        diagnosed: of these.
        steps, passes: of the sampler, and through the denoiser for each of them.
        operations: for an image that is not diagnosed, in 10¹².
        hours: of one GPU, for all images.
    """

    setting: str
    images: int
    diagnosed: int
    steps: int
    passes: float
    operations: float
    hours: float


@dataclass(frozen=True)
class Forecast:
    """The cost of what is left of a study.

    Attributes:
        planned, there: images of the whole study, and how many of them are there already.
        rows: a row for each setting that has images planned.
        scoring: hours of one GPU.
        disk: bytes, by what takes them.
        told: the arithmetic in sentences.
    """

    planned: int
    there: int
    rows: tuple[Row, ...]
    scoring: float
    disk: Mapping[str, float]
    told: tuple[str, ...]

    @property
    def images(self) -> int:
        """To be made, of all settings."""
        return sum(row.images for row in self.rows)

    @property
    def hours(self) -> float:
        """Of one GPU, scoring included."""
        return sum(row.hours for row in self.rows) + self.scoring

    @property
    def bytes(self) -> float:
        """On disk, altogether."""
        return sum(self.disk.values())


def forecast(
    study: Study, model: Model | None, extractors: int, seconds: float | None = None, store: Store | None = None
) -> Forecast:
    """What is left of a study costs.

    Args:
        study: what is asked for; prompts may be standing in.
        model: without weights, from `skeleton`.
        extractors: how many look at each image.
        seconds: for one vanilla image, as measured; by default its operations at `TERAFLOPS`.
        store: what is there; by default nothing.

    Raises:
        ValueError: the operations cannot be counted, and `seconds` is not given.
    """
    if seconds is not None and not seconds > 0:
        raise ValueError(f"--seconds-per-image must be above 0, got {seconds:g}")
    requests = {name: setting.request("a prompt", 0, study.common) for name, setting in study.settings.items()}
    if model is not None:
        requests = {name: complete(model, request) for name, request in requests.items()}
    base = requests[next((n for n, each in study.settings.items() if each.family == "vanilla"), next(iter(requests)))]
    work = {request.size: _work(model, request) for request in requests.values()}
    if work[base.size] is None and seconds is None:
        raise ValueError(
            f"the operations of {study.model} cannot be counted here; measure one vanilla image and give "
            "--seconds-per-image"
        )
    told = [*_told(base, work[base.size], seconds)]
    units = list(plan(study, _descriptions(study, store)))
    run = {unit.setting.name for unit in units}
    failed = set(store.failures()) if store else set()
    left = remaining(units, store, given_up=failed) if store else units
    rate = TERAFLOPS * 1e12 if seconds is None else _operations(base, work[base.size] or UNKNOWN) / seconds
    rows, disk, layers = [], {"images": 0.0, "measures and maps": 0.0}, _layers(model)
    for name in filter(run.__contains__, study.settings):
        own = [unit for unit in left if unit.setting.name == name]
        images, again = _count(own), sum(len(unit.have) for unit in own)
        lenses = [(unit.diagnose, len(unit.samples)) for unit in own if unit.diagnose is not None]
        request, known = requests[name], work[requests[name].size] or UNKNOWN
        flops, each = _operations(request, known), _passes(request)
        more = sum((_operations(request, known, _slower(lens)) - flops) * count for lens, count in lenses)
        diagnosed, steps = sum(count for _, count in lenses), request.steps or 0
        rows.append(Row(name, images, diagnosed, steps, each, flops / 1e12, (flops * images + more) / rate / HOUR))
        width, height = request.size or (0, 0)
        measured = steps * layers * min(each, 2) * (1 if request.circulation.is_identity else 2)
        disk["images"] += (images - again) * width * height * PIXEL
        disk["measures and maps"] += diagnosed * (measured * ROW + 3 * width * height / 256 * 8)
    again = sum(len(unit.have) for unit in left)
    fresh, given_up = _count(left) - again, sum(sample.id in failed for unit in units for sample in unit.samples)
    looks = fresh * extractors + (_unscored(study, store) if store else 0)
    disk["features and scores"] = float(looks * FEATURES)
    if again:
        told.append(f"{again:,} of the images that are there are made once more, since they are yet to be diagnosed")
    if given_up:
        told.append(f"images that could not be made: {given_up:,}; left out, as --retry alone tries them again")
    if store and store.done("samples") and any(some.lacking for some in study.prompts.values()):
        told.append("images of prompts that are missing here are not taken off, though they may be there")
    told.append(
        f"scoring: {looks:,} looks at an image ({extractors} extractors) × {SCORING:g} s; disk: {PIXEL:g} bytes a "
        f"pixel as PNG, {ROW:g} a row of measures (one for each step, layer, branch and retrieval), {FEATURES:,} for "
        "an extractor's features of an image (assumed)"
    )
    there = _count(units) - given_up - fresh
    return Forecast(_count(units), there, tuple(rows), looks * SCORING / HOUR, disk, tuple(told))


def _work(model: Model | None, request: Request) -> Work | None:
    return None if model is None or request.size is None else count_work(model, request.size)


def _descriptions(study: Study, store: Store | None) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """As `plan` takes them: of settings that the store knows, and stand-ins for those that were never begun."""
    known = store.descriptions() if store else {}
    keys = {name: setting_key(study, setting) for name, setting in study.settings.items()}
    return {
        name: (known[key]["id"], known[key]["description"]) if key in known else (key, {"setting": name})
        for name, key in keys.items()
    }


def _count(units: Sequence[Unit]) -> int:
    return sum(len(unit.samples) for unit in units)


def _unscored(study: Study, store: Store) -> int:
    """How often an extractor has yet to look at an image that is there."""
    tasks = Counter((task.setting_id, task.unit) for task in scoring_tasks(store, metric_names(study)))
    return sum(count * store.read("samples", *unit, columns=["sample_id"]).num_rows for unit, count in tasks.items())


def _operations(request: Request, work: Work, slower: float = 1.0) -> float:
    # A null perturbation computes the circulation that it is the null of.
    control, forward = getattr(request.baseline, "circulation", request.circulation), work.forward
    if not control.is_identity:
        forward += CONTROLLED * work.attention
        forward += EXACT * work.by_heads if control.norm is not None and control.space == "input" else 0.0
    return (request.steps or 1) * _passes(request) * forward * slower + work.decode


def _passes(request: Request) -> float:
    # A model's own scale of guidance, where none is given, is above 1 for all that take one.
    return passes(request, {"guidance": 2.0 if request.guidance is None else request.guidance})


def _slower(lens: Mapping[str, Any]) -> float:
    return DIAGNOSED_WHOLLY if lens.get("features", 64) is None else DIAGNOSED


def _told(base: Request, work: Work | None, seconds: float | None) -> Iterator[str]:
    steps, each = base.steps or 1, _passes(base)
    if work is None:
        yield (
            f"a vanilla image takes {seconds:g} s, as given; others in proportion to their steps and passes, "
            "self-attention being taken for a tenth of a pass"
        )
        return
    total = _operations(base, work) / 1e12
    image = (
        f"a vanilla image is {steps} steps × {each:g} passes × {figure(work.forward / 1e12)} TFLOP + "
        f"{figure(work.decode / 1e12)} for decoding = {figure(total)} TFLOP, counted; text encoders are left out"
    )
    if seconds is None:
        yield (
            f"{image}; at {TERAFLOPS:g} TFLOP/s (assumed; give --seconds-per-image S if measured) that takes "
            f"{figure(total / TERAFLOPS)} s"
        )
    else:
        yield f"{image}; it takes {seconds:g} s, as given, and others in proportion"
    extra, exact = CONTROLLED * work.attention / 1e12, EXACT * work.by_heads / 1e12
    yield (
        f"a controlled pass is at most {figure(extra)} TFLOP more (8 L²C multiply-adds a layer), and with the norm of "
        f"the input features {figure(exact)} more; a diagnosed pass takes {DIAGNOSED:g} times as long, "
        f"{DIAGNOSED_WHOLLY:g} with all features (measured on a CPU)"
    )


def _layers(model: Model | None) -> int:
    if model is None:
        return 0
    return sum(not layer.aside for root in find_denoisers(model.pipe).values() for layer in find_layers(root))
