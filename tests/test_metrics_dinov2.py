"""DINOv2's features against Meta's own code, frozen; and that nothing but the image and the weights moves them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import scorers
from symskew.metrics import Site
from symskew.metrics.dinov2 import RENAMED, dinov2, placed, squashed


@pytest.fixture(scope="module")
def eye(tiny_scorers):
    return dinov2(Site.of(tiny_scorers))


@pytest.fixture(scope="module")
def features(eye):
    return eye.extract(scorers.images())["features"]


def test_they_are_those_of_metas_code(features):
    assert features == pytest.approx(scorers.upstream("dinov2"), abs=2e-6)
    assert features.dtype == np.float32


def test_an_image_alone_has_the_same_features_to_the_last_bit(eye, features):
    for image, row in zip(scorers.images(), features, strict=True):
        assert np.array_equal(eye.extract([image])["features"], row[None])
    assert eye.extract([])["features"].shape == (0, 48)


def test_positions_as_transformers_interpolates_them_are_not_those_of_meta(tiny_scorers, features):
    from transformers import Dinov2Model

    folder = tiny_scorers["dinov2-l"]
    network = Dinov2Model.from_pretrained(folder, local_files_only=True).eval()
    with torch.no_grad():
        found = network(torch.stack([squashed(image, 224) for image in scorers.images()])).pooler_output
    assert np.abs(found.numpy() - features).max() > 1e-3


def test_positions_are_kept_where_they_are_as_many_as_patches():
    positions = torch.randn(1, 1 + 16**2, 5)
    assert torch.equal(placed(positions, 16), positions)
    smooth = torch.linspace(0, 1, 37)[:, None, None].expand(37, 37, 3).reshape(1, -1, 3)
    found = placed(torch.cat([torch.full((1, 1, 3), 7.0), smooth], 1), 16)
    assert found.shape == (1, 257, 3)
    assert (found[0, 0] == 7).all()
    # From the top, centres of patches are at (i + ½) · 37 / 16.1 of 37 rows, half a row off.
    centres = ((torch.arange(16) + 0.5) * 37 / 16.1 - 0.5) / 36
    assert found[0, 1:, 0].view(16, 16)[2:-2, 8] == pytest.approx(centres[2:-2], abs=0.002)  # bicubic: nearly linear


def test_images_are_squashed_whatever_their_shape():
    wide = Image.new("RGB", (600, 100))
    wide.paste((255, 255, 255), (300, 0, 600, 100))
    found = squashed(wide, 224)
    assert found.shape == (3, 224, 224)
    assert found[0, :, 0].tolist() == pytest.approx([-0.485 / 0.229] * 224, abs=1e-6)
    assert found[2, :, -1].tolist() == pytest.approx([(1 - 0.406) / 0.225] * 224, abs=1e-6)


def test_weights_under_the_names_of_transformers_5_are_the_same(tmp_path, tiny_scorers, features):
    folder = Path(tiny_scorers["dinov2-l"])
    state = load_file(folder / "model.safetensors")
    for old, new in RENAMED.items():
        state = {name.replace(old, new): value for name, value in state.items()}
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    assert np.array_equal(dinov2(Site.of({"dinov2-l": tmp_path})).extract(scorers.images())["features"], features)


def test_what_is_wrong_with_weights_is_one_sentence(tmp_path, tiny_scorers, monkeypatch):
    folder = Path(tiny_scorers["dinov2-l"])
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(FileNotFoundError, match=r"dinov2-l: .*not there; get it by: hf download facebook/dinov2-large"):
        dinov2(Site.of({"dinov2-l": tmp_path / "nowhere"})).extract(scorers.images()[:1])
    state = load_file(folder / "model.safetensors")
    for name, change, said in (
        ("less", {"layernorm.bias": None}, "there is no layernorm.bias"),
        ("more", {"other": torch.zeros(1)}, "other is unknown"),
        ("shape", {"layernorm.bias": torch.zeros(5)}, r"layernorm.bias is \(5,\) instead of \(48,\)"),
    ):
        other = tmp_path / name
        other.mkdir()
        changed = {key: value for key, value in {**state, **change}.items() if value is not None}
        save_file(changed, other / "model.safetensors")
        (other / "config.json").write_text((folder / "config.json").read_text())
        with pytest.raises(ValueError, match=rf"dinov2-l: .* holds other weights than Dinov2Model needs: {said}"):
            dinov2(Site.of({"dinov2-l": other})).extract(scorers.images()[:1])
    (tmp_path / "less" / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"dinov2-l: .*cannot be read as weights"):
        dinov2(Site.of({"dinov2-l": tmp_path / "less"})).extract(scorers.images()[:1])
    (tmp_path / "less" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json not beside it"):
        dinov2(Site.of({"dinov2-l": tmp_path / "less"})).extract(scorers.images()[:1])


def test_images_of_16_bits_are_refused(eye):
    with pytest.raises(ValueError, match="dinov2-l/fp32@1: expected images of 8 bits a channel"):
        eye.extract([Image.new("I;16", (30, 30))])


def test_what_it_is_called_and_takes(eye):
    assert (eye.id, eye.dtype, eye.kept, eye.resize[:7]) == ("dinov2-l/fp32@1", "fp32", True, "224×224")
    assert eye.memory > 304_368_640 * 4  # parameters of the published network
    assert len(eye.weights) == 64
