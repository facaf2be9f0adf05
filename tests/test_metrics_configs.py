"""A file beside the weights gives sizes alone: it names no model to download, and nonsense is one sentence."""

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

import scorers
from symskew.metrics import Site
from symskew.metrics.configs import fitting, read_beside, sizes
from symskew.metrics.dinov2 import dinov2
from symskew.metrics.imagereward import BlipTokens
from symskew.metrics.towers import towers
from symskew.metrics.weights import Source

SOURCE = Source("tower", ("model.safetensors",), 1, "MIT", repo="one/tower", beside=("config.json",))
FILES = {
    "clip-l": "config.json",
    "pickscore": "config.json",
    "dinov2-l": "config.json",
    "hps": "open_clip_config.json",
    "imagereward": "med_config.json",
}
IMAGE = [Image.new("RGB", (64, 64), (200, 30, 90))]


@pytest.fixture
def copied(tiny_scorers, tmp_path):
    """A function that copies weights, with another text in the file beside them, and returns their extractor."""

    def copy(name, text):
        folder = shutil.copytree(tiny_scorers[name], tmp_path / name, dirs_exist_ok=True)
        (folder / FILES[name]).write_text(text)
        site = Site.of(tiny_scorers | {name: folder})
        eyes = [dinov2(site), BlipTokens("fp32", site), *towers(site)]
        return next(eye for eye in eyes if eye.sources[0].name == name and eye.dtype == "fp32")

    return copy


def written(tiny_scorers, name):
    return json.loads(Path(tiny_scorers[name], FILES[name]).read_text())


def test_what_is_beside_is_read_and_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "model.safetensors"
    (tmp_path / "config.json").write_text('{"width": 3}')
    assert read_beside(path, "config.json", SOURCE) == {"width": 3}
    assert read_beside(path, "other.json", SOURCE) == {}
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"tower: .*config.json is damaged: .*; get it by"):
        read_beside(path, "config.json", SOURCE)


def test_only_what_is_asked_for_is_taken():
    assert sizes({"a": 1, "b": None, "c": 3}, ["b", "a", "d"]) == {"b": None, "a": 1}
    with pytest.raises(ValueError, match="expected names with values, got a list"):
        sizes([1], ["a"])


def test_failures_of_libraries_become_one_sentence():
    says = f"tower: {Path('x/config.json')} is damaged or of another model: expected int; {SOURCE.remedy}"
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"), fitting(Path("x/model.bin"), "config.json", SOURCE):
        raise TypeError("expected int\n  got str\n")


@pytest.mark.parametrize(
    "text", ['{"hidden', "[" * 100_000, "[]", "<html>404</html>"], ids=["cut", "deep", "list", "page"]
)
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_configuration_is_one_sentence(copied, name, text):
    with pytest.raises(
        ValueError, match=rf"^{name}: \S*{FILES[name]} is damaged: [^\n]*; get it by: hf download [^\n]*$"
    ):
        copied(name, text).extract(IMAGE)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("clip-l", {"vision_config": [1]}),
        ("clip-l", {"vision_config": {"hidden_size": "x"}}),
        ("clip-l", {"text_config": {"hidden_act": "x"}}),
        ("dinov2-l", {"hidden_size": "x"}),
        ("dinov2-l", {"patch_size": 0}),
        ("hps", {"model_cfg": [1]}),
        ("hps", {"model_cfg": {"x": 1}}),
        ("hps", {"model_cfg": {"embed_dim": "x", "vision_cfg": {"layers": 1}, "text_cfg": {}}}),
        ("hps", {"model_cfg": {"embed_dim": 8, "vision_cfg": {"layers": 1}, "text_cfg": [1]}}),
        ("imagereward", {"hidden_size": "x"}),
        ("imagereward", {"hidden_act": "x"}),
    ],
)
def test_a_configuration_that_makes_no_network_is_one_sentence(copied, name, text):
    says = rf"^{name}: \S*{FILES[name]} is damaged or of another model: [^\n]+; get it by: hf download [^\n]*$"
    with pytest.raises(ValueError, match=says):
        copied(name, json.dumps(text)).extract(IMAGE)


@pytest.mark.parametrize("name", ["clip-l", "dinov2-l"])
def test_a_configuration_of_other_sizes_is_one_sentence(copied, tiny_scorers, name):
    own = written(tiny_scorers, name)
    own.get("text_config", own)["num_hidden_layers"] += 1
    with pytest.raises(ValueError, match=rf"^{name}: \S* holds other weights than \w+ needs: .*; get it by: hf"):
        copied(name, json.dumps(own)).extract(IMAGE)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("vision_cfg", "timm_model_name", "resnet18"),
        ("vision_cfg", "timm_model_name", "hf-hub:somebody/model"),
        ("text_cfg", "hf_model_name", "somebody/text"),
        ("text_cfg", "hf_tokenizer_name", "somebody/words"),
    ],
)
def test_no_model_that_a_file_beside_the_weights_names_is_asked_for(copied, no_network, part, key, value):
    own = scorers.HPS_SHAPE | {part: {key: value, "timm_model_pretrained": True} if "timm" in key else {key: value}}
    with pytest.raises(ValueError, match=rf"open_clip_config.json is .* another model: {part} may hold .* holds {key}"):
        copied("hps", json.dumps({"model_cfg": own})).extract(IMAGE)
    assert not no_network


@pytest.mark.parametrize("name", ["clip-l", "dinov2-l", "imagereward"])
@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_no_code_for_attention_that_it_names_is_asked_for(copied, no_network, tiny_scorers, name, key):
    own, named = written(tiny_scorers, name), {key: "somebody/attention"}
    own |= {part: own[part] | named for part in ("text_config", "vision_config") if part in own}
    eye = copied(name, json.dumps(own | named))
    assert set(eye.extract(IMAGE)) <= {"embedding", "features", "tokens"}
    assert not no_network


def test_older_files_say_sizes_twice(copied, tiny_scorers):
    own = written(tiny_scorers, "clip-l")
    older = {f"{name}_dict" if name.endswith("_config") else name: value for name, value in own.items()}
    expected = copied("clip-l", json.dumps(own)).extract(IMAGE)["embedding"]
    assert (copied("clip-l", json.dumps(older)).extract(IMAGE)["embedding"] == expected).all()
    null = own | {"text_config_dict": None, "vision_config_dict": None}
    assert (copied("clip-l", json.dumps(null)).extract(IMAGE)["embedding"] == expected).all()
