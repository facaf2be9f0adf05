"""CLIPScore, PickScore and HPS v2.1, against what their own code says with the same tiny weights."""

from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import build_model_from_openai_state_dict
from transformers import CLIPConfig, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import scorers
from symskew import metrics
from symskew.metrics import pixels, towers
from symskew.metrics.alignment import VARIANTS

IMAGES = scorers.images()


def every(name, site, images=IMAGES, prompts=scorers.PROMPTS):
    """The scores of all images with all prompts."""
    metric, eye = scorers.found(name, site)
    features = eye.extract(images)
    return np.stack([metric.score(features, [prompt] * len(images)) for prompt in prompts])


@pytest.fixture(scope="module")
def site(tiny_scorers):
    return metrics.Site.of(tiny_scorers)


def test_clipscore_of_vit_l_is_that_of_the_image_reward_package(site):
    assert every("clip-l", site) == pytest.approx(scorers.upstream("clip-l"), abs=1e-6)


def test_hps_is_that_of_the_hpsv2_package(site, monkeypatch):
    images = [image.convert("RGB") for image in IMAGES]
    expected = scorers.upstream("hps")
    assert every("hps", site, images) == pytest.approx(expected, abs=1e-6)
    eye = metrics.extractor("hps/fp32@1", site)
    monkeypatch.setattr(eye, "_prepare", pixels.cropped)  # as open_clip would, and not as hpsv2
    assert np.abs(every("hps", site, images) - expected).max() > 1e-2


def test_clipscore_of_vit_b_is_that_of_open_clip_with_quick_gelu(site):
    """The authors called open_clip's ViT-B-32 of OpenAI, which older versions built so."""
    theirs = build_model_from_openai_state_dict(scorers.filled(scorers.shapes("clip")), cast_dtype=torch.float32)
    theirs.float().eval()
    images = torch.stack([pixels.cropped(image, 224) for image in IMAGES])
    with torch.no_grad():
        seen = theirs.encode_image(images, normalize=True)
        read = theirs.encode_text(open_clip.tokenize(list(scorers.PROMPTS)), normalize=True)
    assert every("clip-b32", site) == pytest.approx((read @ seen.T).numpy(), abs=1e-6)


def test_pickscore_is_the_logit_of_transformers(site, tiny_scorers):
    """As the snippet of its README: upstream is transformers itself, which converted to RGB first."""
    theirs = CLIPModel.from_pretrained(tiny_scorers["pickscore"]).eval()
    tokens = towers.transformers_tokens(scorers.PROMPTS)
    images = torch.tensor(
        np.stack([CLIPImageProcessorPil()(image.convert("RGB"))["pixel_values"][0] for image in IMAGES])
    )
    with torch.no_grad():
        logits = theirs(input_ids=tokens, pixel_values=images).logits_per_text.numpy()
    found = every("pickscore/logit", site)
    assert found == pytest.approx(logits, abs=1e-4)
    assert found / np.exp(np.float16(4.6).astype(float)) == pytest.approx(every("pickscore", site), rel=1e-5)


def test_variants_are_made_of_the_cosine(site):
    cosine, named = every("clip-l", site), [f"A photo depicts {prompt}" for prompt in scorers.PROMPTS]
    assert (cosine < 0).any()
    assert every("clip-l/x100", site) == pytest.approx(100 * cosine.clip(0))
    assert every("clip-l/hessel", site) == pytest.approx(2.5 * every("clip-l", site, prompts=named).clip(0))


@pytest.mark.parametrize("name", ["clip-l", "clip-b32", "pickscore", "hps"])
def test_an_image_does_not_depend_on_its_batch_mates(site, name):
    images = IMAGES + IMAGES[::-1]
    together = every(name, site, images, scorers.PROMPTS[:1])[0]
    alone = [every(name, site, [image], scorers.PROMPTS[:1])[0, 0] for image in images]
    assert together.tolist() == alone


@pytest.mark.parametrize("name", ["clip-l", "clip-b32", "pickscore", "hps"])
def test_a_text_does_not_depend_on_the_others(tiny_scorers, name):
    one, other = (metrics.Site.of({name: tiny_scorers[name]} | {"x": x}) for x in "ab")
    together = scorers.found(name, one)[1].texts(list(scorers.PROMPTS))
    eye = scorers.found(name, other)[1]
    for text, row in zip(scorers.PROMPTS, together, strict=True):
        assert np.array_equal(eye.texts([text])[0], row)


@pytest.mark.parametrize("name", ["clip-l", "hps"])
def test_half_precision_is_another_metric_and_close(site, name):
    (half, small), (full, large) = (scorers.found(each, site) for each in (f"{name}/fp16", name))
    assert half.id == full.id.replace("fp32", "fp16")
    assert every(f"{name}/fp16", site) == pytest.approx(every(name, site), abs=5e-3)
    assert small.memory < large.memory


def test_features_are_small_and_are_kept(site):
    eye = metrics.extractor("clip-l/fp32@1", site)
    found = eye.extract(IMAGES[:2])["embedding"]
    assert (found.shape, found.dtype, eye.kept) == ((2, 768), np.float32, True)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1)
    assert eye.extract([])["embedding"].shape == (0, 768)
    assert len(eye.weights) == 64


def test_one_embedding_serves_clipscore_and_the_aesthetic_score(site):
    names = ["clip-l", "clip-l/x100", "clip-l/hessel", "aesthetic"]
    assert {metric.extractor for metric in metrics.find(names, site)} == {"clip-l/fp32@1"}


def test_prompts_must_be_as_many_as_images(site):
    metric, _ = scorers.found("hps", site)
    with pytest.raises(ValueError, match=r"hps/v2\.1/fp32@1: expected a prompt for each image, got 1 for 2 images"):
        metric.score({"embedding": np.ones((2, 64))}, ["a"])
    assert metric.score({"embedding": np.ones((0, 64))}, []).shape == (0,)


def test_memory_is_that_of_the_published_networks():
    """Parameters of the published shapes, which a device without memory can count."""
    with torch.device("meta"):
        shape: Any = open_clip.get_model_config("ViT-H-14")
        huge = sum(each.numel() for each in open_clip.CLIP(**shape).parameters())
        vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
        text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
        config = CLIPConfig(vision_config={**vision, "patch_size": 14}, text_config=text, projection_dim=768)
        large = sum(each.numel() for each in CLIPModel(config).parameters())
        base = sum(each.numel() for each in CLIPModel(CLIPConfig()).parameters())
    counts = {"clip-l": large, "clip-b32": base, "pickscore": huge, "hps": huge}
    for eye in towers.towers(metrics.Site()):
        name = eye.sources[0].name
        size = counts[name] * (4 if eye.dtype == "fp32" else 2)
        assert eye.memory == size + towers.ROOM
        assert eye.sources[0].size == pytest.approx(counts[name] * (2 if name == "hps" else 4), rel=1e-3)
    assert set(VARIANTS) == set(counts)
