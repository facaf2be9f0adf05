"""ImageReward, against its own package with the same tiny weights."""

from typing import Any

import numpy as np
import pytest
import torch

import scorers
from symskew import metrics
from symskew.metrics import imagereward

IMAGES = scorers.images()


@pytest.fixture(scope="module")
def site(tiny_scorers):
    return metrics.Site.of(tiny_scorers)


@pytest.fixture(scope="module")
def metric(site):
    return scorers.found("imagereward", site)[0]


@pytest.fixture(scope="module")
def features(metric, site):
    return metrics.extractor(metric.extractor, site).extract(IMAGES)


def test_it_is_that_of_its_package(metric, features):
    found = np.stack([metric.score(features, [prompt] * len(IMAGES)) for prompt in scorers.PROMPTS])
    assert found == pytest.approx(scorers.upstream("imagereward"), abs=1e-5)
    assert found.std() > 0.3


def test_neither_image_nor_prompt_depends_on_the_others(metric, features, site):
    prompts = [scorers.PROMPTS[place % len(scorers.PROMPTS)] for place in range(len(IMAGES))]
    together = metric.score(features, prompts)
    eye = metrics.extractor(metric.extractor, site)
    alone = [metric.score(eye.extract([image]), [prompt])[0] for image, prompt in zip(IMAGES, prompts, strict=True)]
    assert together.tolist() == alone


def test_half_precision_is_close(site, metric, features):
    half, eye = scorers.found("imagereward/fp16", site)
    seen = eye.extract(IMAGES)
    prompts = [scorers.PROMPTS[0]] * len(IMAGES)
    assert half.score(seen, prompts) == pytest.approx(metric.score(features, prompts), abs=0.05)


def test_what_the_image_encoder_sees_is_not_stored(site, features):
    eye = metrics.extractor("imagereward/fp32@1", site)
    assert not eye.kept
    assert features["tokens"].shape == (len(IMAGES), 50, 128)


def test_weights_lacking_or_having_a_tensor_are_one_sentence(tmp_path, tiny_scorers):
    state = scorers.filled(scorers.shapes("imagereward"))
    name = "blip.text_encoder.encoder.layer.1.crossattention.self.key.weight"
    for change, says in (
        ({name: None}, "there is no text.encoder.layer.1.crossattention.self.key.weight"),
        ({"extra": torch.zeros(1)}, "extra is unknown"),
        ({name: torch.zeros(48, 7)}, r"key.weight is \(48, 7\) instead of \(48, 128\)"),
        ({"blip.visual_encoder.pos_embed": None}, "there is no 'vision.embeddings.position_embedding'"),
    ):
        changed = {key: value for key, value in {**state, **change}.items() if value is not None}
        scorers.write_imagereward(tmp_path, changed)
        eye = imagereward.BlipTokens("fp32", metrics.Site.of(tiny_scorers | {"imagereward": tmp_path}))
        with pytest.raises(
            ValueError, match=rf"imagereward: .*ImageReward.pt holds other weights .*{says}.*; get it by: hf"
        ):
            eye.extract(IMAGES[:1])


def test_what_upstream_does_not_use_may_be_missing(tmp_path, tiny_scorers, features):
    state = scorers.filled(scorers.shapes("imagereward"))
    few = {name: value for name, value in state.items() if not imagereward._UNUSED.match(name)}
    assert len(few) == len(state) - 5
    scorers.write_imagereward(tmp_path, few)
    eye = imagereward.BlipTokens("fp32", metrics.Site.of(tiny_scorers | {"imagereward": tmp_path}))
    assert np.array_equal(eye.extract(IMAGES)["tokens"], features["tokens"])


@pytest.mark.parametrize("change", ["page", "cut", "other"])
@pytest.mark.parametrize("name", ["vocab.txt", "mine.txt"])
def test_another_vocabulary_is_refused_also_one_named_by_hand(tmp_path, tiny_scorers, features, change, name):
    """A part of it would do for the network, and move the scores."""
    lines = scorers.write_vocabulary(tmp_path).read_text(encoding="utf-8").splitlines()
    other = {"page": ["<html>404</html>"], "cut": lines[:20_000], "other": lines[::-1]}[change]
    (tmp_path / name).write_text("\n".join(other) + "\n", encoding="utf-8")
    eye = imagereward.BlipTokens("fp32", metrics.Site.of(tiny_scorers | {"bert": tmp_path / name}))
    with pytest.raises(
        ValueError, match=rf"bert: \S*{name} is not the published file: .* published are about 231,508\).*; .*get it by"
    ):
        eye.read(features["tokens"][:1], ["a cat"])


def test_memory_is_that_of_the_published_network():
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    vision: dict[str, Any] = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    }
    text: dict[str, Any] = imagereward._TEXT | {"encoder_hidden_size": 1024, "is_decoder": True}
    with torch.device("meta"):
        parts = (
            BlipVisionModel(BlipVisionConfig(**vision, image_size=224, patch_size=16)),
            BlipTextModel(BlipTextConfig(**text), add_pooling_layer=False),
            imagereward.five_layers(768),
        )
    count = sum(each.numel() for part in parts for each in part.parameters())
    eye = imagereward.BlipTokens("fp32", metrics.Site())
    assert eye.memory == pytest.approx(4 * count + imagereward.ROOM, rel=0.01)
    assert imagereward.WEIGHTS.size == pytest.approx(4 * count, rel=0.01)
