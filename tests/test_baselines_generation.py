"""Requests that name a baseline: on the shipped model, with its id, its progress and its refusals."""

import json

import numpy as np
import pytest

from symskew import Circulation
from symskew.baselines import PAG, SEG, CirculatedGuidance, FreeU, NullPerturbation
from symskew.generation import Request, check, complete, describe_request, generate, repeat, request_of, settings_id
from symskew.models import load_model

ALL = [
    PAG(3.0),
    SEG(3.0, layers="up"),
    CirculatedGuidance(2.0, Circulation(0.0), layers="up"),
    FreeU(1.2, 1.3, 0.9, 0.5),
    NullPerturbation(2.0, layers="up"),
]


@pytest.fixture(scope="module")
def model():
    return load_model("ensemble-sdxl")


def pixels(model, requests, **options):
    return {result.id: (result, np.asarray(result.image, int)) for result in generate(model, requests, **options)}


def requests(baseline=None, **changes):
    prompts = ("a red three", "a blue seven")
    return [Request(prompt, seed, steps=3, baseline=baseline, **changes) for seed, prompt in enumerate(prompts)]


@pytest.mark.parametrize("baseline", ALL, ids=lambda baseline: baseline.name)
def test_a_request_names_a_baseline(model, baseline):
    plain, parts = pixels(model, requests()), []
    together = pixels(model, requests(baseline), on_step=parts.append)
    assert sum(parts) == pytest.approx(2)
    assert len(parts) > 2
    alone = pixels(model, requests(baseline)[::-1], batch=1)
    assert together.keys() == alone.keys()
    assert not together.keys() & plain.keys()
    for id_, (result, image) in together.items():
        # Sums over a batch may differ in the last bit, which may tip a rounding to 8 bits, and no more.
        assert np.abs(image - alone[id_][1]).max() <= 1
        record = json.loads(json.dumps(result.record(), allow_nan=False))
        assert record["baseline"] == json.loads(json.dumps(baseline.to_dict()))
        assert request_of(record).baseline == baseline
        assert describe_request(model, request_of(record)) == result.settings
        again = repeat(model, record)
        assert again.image.tobytes() == result.image.tobytes()
    pairs = zip(together.values(), plain.values(), strict=True)
    assert max(np.abs(image - other).max() for (_, image), (_, other) in pairs) > 5
    for id_, (result, _) in pixels(model, requests()).items():
        assert result.image.tobytes() == plain[id_][0].image.tobytes()


def test_ids_without_one_stay_what_they_were(model):
    settings = describe_request(model, Request("a red one"))
    assert "baseline" not in settings
    ids = {settings_id(describe_request(model, Request("a red one", baseline=each))) for each in (None, *ALL)}
    assert len(ids) == 1 + len(ALL)


@pytest.mark.parametrize("baseline", ALL[:4], ids=lambda baseline: baseline.name)
def test_a_diagnosis_and_a_circulation_beside_it(model, baseline):
    asked = requests(baseline, circulation=Circulation(2.0), layers="up")[:1]
    ((plain, image),) = pixels(model, asked).values()
    ((watched, same),) = pixels(model, asked, diagnose={"layers": "up"}).values()
    assert plain.id == watched.id
    assert (image == same).all()
    assert watched.diagnosis is not None
    assert watched.diagnosis.mean("alpha", branch="conditional") == 2.0
    ((_, without),) = pixels(model, requests(baseline)[:1]).values()
    assert (without != image).any()


def test_what_adapts_to_the_whole_call_is_generated_one_by_one(model):
    for baseline in (
        NullPerturbation(2.0, adaptive="call", layers="up"),
        CirculatedGuidance(2.0, Circulation(0.5, adaptive="call")),
    ):
        assert {result.run["batch"] for result in generate(model, requests(baseline))} == {1}


@pytest.mark.parametrize(
    ("changes", "diagnosis", "message"),
    [
        ({"baseline": PAG(3.0, layers="nowhere")}, None, "picks none of the"),
        ({"baseline": SEG(3.0, layers="nowhere")}, None, "picks none of the"),
        (
            {"baseline": NullPerturbation(2.0), "circulation": Circulation(2.0)},
            None,
            "the baseline null takes the place of a circulation; ask for one of the two",
        ),
        ({"baseline": NullPerturbation(2.0)}, {}, "under the baseline null a diagnosis would not see what acts"),
        ({"baseline": NullPerturbation(2.0, start=0.6, stop=0.7)}, None, "no step lies between start=0.6 and stop=0.7"),
    ],
)
def test_what_cannot_be_met_is_refused_first(model, changes, diagnosis, message):
    request = Request("a red one", steps=2, **changes)
    with pytest.raises(ValueError, match=message):
        check(model, [complete(model, request)], diagnosis)
    with pytest.raises(ValueError, match=message):
        generate(model, [request], diagnose=diagnosis)
