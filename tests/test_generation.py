"""Generation: what an image depends on, and what it does not."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import ImageChops

from folders import ensemble_folder, plain_folder
from symskew.circulate import Circulation
from symskew.generation import Request, check, complete, describe_request, generate, repeat, request_of, settings_id
from symskew.models import damaged_files, find_model, load_model

CONTROL = Circulation(3.0, 2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return ensemble_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(folder):
    return load_model(str(folder))


def images(model, requests, **options):
    return {result.id: result.image for result in generate(model, requests, **options)}


def id_of(model, request):
    return settings_id(describe_request(model, request))


def same(first, second):
    return ImageChops.difference(first, second).getbbox() is None


def test_an_image_depends_on_its_own_request_alone(model):
    requests = [Request(prompt, seed) for prompt in ("a red one", "a blue two and a red six") for seed in (0, 5)]
    together, alone = images(model, requests, batch=3), images(model, requests[::-1], batch=1)
    assert together.keys() == alone.keys()
    for id_, image in together.items():
        # Sums over a batch may differ in the last bit, which may tip a rounding to 8 bits, and no more.
        difference = np.abs(np.asarray(image, int) - np.asarray(alone[id_], int))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01
    assert len({image.tobytes() for image in together.values()}) == 4


def test_adapting_to_the_whole_call_does_not_look_at_the_other_images(model):
    requests = [Request("a red one", seed, Circulation(3.0, 2.0, adaptive="call")) for seed in range(3)]
    together = images(model, requests, batch=3)
    for request in requests:
        (alone,) = generate(model, [request])
        assert same(together[alone.id], alone.image)


def test_control_changes_the_image_and_the_identity_does_not(model):
    plain, identity, controlled = (
        next(iter(generate(model, [Request("a red one", circulation=circulation, layers="mid")])))
        for circulation in (Circulation(), Circulation(1.0, 7.0), CONTROL)
    )
    assert same(plain.image, identity.image)
    assert not same(plain.image, controlled.image)
    # What does nothing has no part in the name.
    assert plain.id == identity.id != controlled.id
    assert "layers" not in identity.settings


def test_duplicates_are_generated_once(model):
    assert len(images(model, [Request("a red one"), Request("a red one", steps=2), Request("a red one")])) == 1


def test_repeat_gives_the_same_bytes_from_the_record_alone(model):
    requests = [Request("a red one", seed, CONTROL, layers=("up", (0.2, 0.6)), stop=0.5) for seed in range(3)]
    for result in generate(model, requests, batch=2):
        record = json.loads(json.dumps(result.record()))
        again = repeat(model, record)
        assert same(again.image, result.image)
        assert (again.id, again.settings) == (result.id, result.settings)
        assert again.run == result.run


@pytest.mark.parametrize(
    "request_",
    [
        Request("a red one"),
        Request("a red one", 3, Circulation(1.2, 5, sym=0.5, adaptive="sample", norm=None, space="input"), layers="up"),
        Request("x", layers=("up", (0.1, 0.5)), circulation=CONTROL, start=0.2, stop=0.7, negative="y", size=(64, 32)),
        Request("x", arguments={"clip_skip": 1, "eta": 0.5}),
    ],
)
def test_settings_and_requests_are_two_sides_of_the_same(model, request_):
    settings = json.loads(json.dumps(describe_request(model, request_)))
    assert request_of(settings) == complete(model, request_)
    assert describe_request(model, request_of(settings)) == settings


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a red two"},
        {"seed": 1},
        {"circulation": CONTROL},
        {"steps": 3},
        {"guidance": 2.0},
        {"negative": ""},
        {"size": (64, 32)},
        {"arguments": {"guidance_rescale": 0.5}},
    ],
)
def test_the_id_changes_with_every_setting(model, change):
    request = Request("a red one")
    assert id_of(model, request) != id_of(model, replace(request, **change))


def test_more_arguments_reach_the_pipeline_and_have_one_spelling(model):
    plain, rescaled = (
        next(iter(generate(model, [Request("a red one", guidance=9, arguments=arguments)])))
        for arguments in ({}, {"guidance_rescale": 1})
    )
    assert not same(plain.image, rescaled.image)
    assert rescaled.settings["arguments"] == {"guidance_rescale": 1.0}
    assert rescaled.id == id_of(model, Request("a red one", guidance=9, arguments={"guidance_rescale": 1.0}))
    assert "arguments" not in plain.settings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"guidance_scale": 3.0}, "arguments: StableDiffusionXLPipeline takes no guidance_scale beside what a request"),
        ({"clip_skp": 1}, "takes no clip_skp beside what a request has; did you mean clip_skip?"),
        ({"clip_skip": True}, "arguments: clip_skip of StableDiffusionXLPipeline must be int, got True"),
        ({"eta": float("nan")}, "arguments: eta of StableDiffusionXLPipeline must be float, got nan"),
        ({"latents": 1}, "takes no latents"),
    ],
)
def test_arguments_that_the_pipeline_does_not_take_are_refused(model, arguments, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        check(model, [complete(model, Request("x", arguments=arguments))])


def test_arguments_are_plain_values():
    with pytest.raises(ValueError, match=r"arguments: expected names with numbers, words or switches, got a: \[1\]"):
        Request("x", arguments={"a": [1]})  # pyright: ignore[reportArgumentType]


def test_the_id_knows_weights_and_not_places(model, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "elsewhere")
    request = Request("a red one", circulation=Circulation(3, 2))
    assert id_of(model, request) == id_of(load_model(str(copy)), replace(request, circulation=Circulation(3.0, 2.0)))
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert find_model(str(copy)).revision != model.files.revision
    assert id_of(model, request) != id_of(replace(model, dtype="bfloat16"), request)


def test_defaults_come_from_the_model_then_from_the_pipeline(model, tmp_path):
    assert (complete(model, Request("x")).steps, complete(model, Request("x")).guidance) == (2, 3.0)
    other = load_model(str(plain_folder(tmp_path / "sd")))
    completed = complete(other, Request("x"))
    assert (completed.steps, completed.guidance, completed.size) == (50, 7.5, (16, 16))
    (result,) = generate(other, [Request("x", steps=2, circulation=CONTROL)])
    assert result.image.size == (16, 16)
    assert not other.files.judged
    assert model.files.judged


def test_progress_adds_up_to_the_number_of_images(model):
    parts = []
    list(generate(model, [Request("a red one", seed) for seed in range(3)], batch=2, on_step=parts.append))
    assert sum(parts) == pytest.approx(3)
    assert len(parts) > 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "  "}, "a prompt is empty"),
        ({"seed": -1}, "a seed must be between"),
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"size": (64, 63)}, "width and height must be multiples of 4"),
        ({"layers": "nowhere"}, "picks none of the"),
        ({"start": 0.6, "stop": 0.4}, "start must come before stop"),
        ({"start": 0.6, "stop": 0.9}, "no step lies between start=0.6 and stop=0.9: the 2 steps begin at multiples"),
    ],
)
def test_what_cannot_be_met_is_refused_first(model, change, message):
    request = replace(Request("a red one", circulation=CONTROL), **change)
    with pytest.raises(ValueError, match=message):
        check(model, [complete(model, request)])
    with pytest.raises(ValueError, match=message):
        generate(model, [request])


def test_models_that_cannot_be_had(folder, tmp_path):
    with pytest.raises(ValueError, match=r"did you mean ensemble-sdxl\?"):
        find_model("ensemble-sdx")
    with pytest.raises(ValueError, match=r"there is no model '\./nowhere'; give a shipped"):
        find_model("./nowhere")
    with pytest.raises(ValueError, match=r"no diffusers pipeline: it has no model_index\.json"):
        find_model(str(tmp_path))
    with pytest.raises(ValueError, match="dtype must be auto, float32"):
        load_model(str(folder), dtype="float8")
    with pytest.raises(ValueError, match="the device 'toaster' cannot be used here"):
        load_model(str(folder), device="toaster")


def test_damage_is_found(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert damaged_files(copy, {}) == []
    assert damaged_files(copy, {"sha256": {"unet/config.json": "0" * 64, "gone.bin": ""}}) == [
        "unet/config.json",
        "gone.bin",
    ]
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (copy / "vae" / "config.json").write_text("{")
    with pytest.raises(
        ValueError, match=r"not whole: unet/diffusion_pytorch_model\.safetensors, vae/config\.json; copy"
    ):
        find_model(str(copy))
    (copy / "symskew.json").write_text("{")
    with pytest.raises(ValueError, match=r"symskew\.json is damaged"):
        find_model(str(copy))


def test_a_diagnosis_changes_no_image_and_goes_with_it(model):
    requests = [Request("a red one", seed) for seed in range(3)]
    plain = images(model, requests, batch=2)
    for result in generate(model, requests, batch=2, diagnose={"maps": True}):
        assert same(result.image, plain[result.id])
        assert result.diagnosis is not None
        assert len(result.diagnosis.scores()) == result.run["batch"]
        assert result.diagnosis.map(sample=result.run["place"]).shape == (16, 16)
    assert all(result.diagnosis is None for result in generate(model, requests[:1]))


def test_a_control_is_diagnosed_as_it_acts(model):
    (result,) = generate(model, [Request("a red one", circulation=CONTROL)], diagnose={"layers": "up"})
    assert result.diagnosis is not None
    assert result.diagnosis.mean("alpha") == CONTROL.alpha
    assert {place.stage for place in result.diagnosis.layers} == {"up"}


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"layers": "nowhere"}, ValueError, "picks none of the"),
        ({"features": 0}, ValueError, "features is a number of at least 1"),
        ({"colour": "red"}, TypeError, "colour"),
    ],
)
def test_a_diagnosis_that_cannot_be_met_is_refused_first(model, settings, kind, message):
    with pytest.raises(kind, match=message):
        generate(model, [Request("a red one")], diagnose=settings)
