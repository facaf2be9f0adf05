"""Inception's features and both ways of resizing against torch-fidelity and clean-fid, frozen."""

import numpy as np
import pytest
import torch
from PIL import Image

import scorers
from symskew.metrics import Site
from symskew.metrics.inception import clean, inceptions, tf1


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return scorers.write_inception(tmp_path_factory.mktemp("inception"), scorers.filled(scorers.shapes("inception")))


def test_features_are_those_of_torch_fidelity_and_do_not_depend_on_the_others(weights):
    eye = inceptions(Site.of({"inception": weights}))[0]
    found = eye.extract(scorers.images())["features"]
    assert found.shape == (6, 2048)
    assert found[:, :: scorers.EVERY] == pytest.approx(scorers.upstream("inception"), abs=2e-6)
    assert np.array_equal(eye.extract(scorers.images()[3:4])["features"], found[3:4])


def test_resizing_is_that_of_clean_fid():
    for image, expected in zip(scorers.images(), scorers.upstream("clean"), strict=True):
        pixels = clean(image, 299).permute(1, 2, 0) * 128 + 128
        assert pixels.flatten()[:: scorers.EVERY_PIXEL].tolist() == pytest.approx(expected, abs=2e-5)


def test_both_leave_an_image_of_their_size_as_it_is_and_differ_otherwise():
    noise = np.random.default_rng(0).integers(0, 256, (299, 299, 3), np.uint8)
    expected = (torch.from_numpy(noise).permute(2, 0, 1).float() - 128) / 128
    assert torch.equal(tf1(Image.fromarray(noise), 299), expected)
    assert torch.equal(clean(Image.fromarray(noise), 299), expected)
    large = Image.fromarray(noise).resize((600, 600), Image.Resampling.NEAREST)
    assert (tf1(large, 299) - clean(large, 299)).abs().mean() > 0.05


def test_tensorflow_1_begins_at_the_corner_and_keeps_single_pixels():
    dots = np.zeros((8, 8, 3), np.uint8)
    dots[::2, ::2] = 255
    assert (tf1(Image.fromarray(dots), 4) == 127 / 128).all()  # every second pixel, and no other has a share
    assert clean(Image.fromarray(dots), 4).abs().max() < 0.7


def test_two_ways_of_resizing_are_two_extractors_with_the_same_weights(weights):
    one, two = inceptions(Site.of({"inception": weights}))
    assert (one.id, two.id) == ("inception-tf1/fp32@1", "inception-clean/fp32@1")
    assert one.weights == two.weights
    assert one.resize != two.resize


def test_what_is_wrong_with_weights_is_one_sentence(tmp_path, weights, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"inception: .*not on this machine; get it by: curl .*6726825d.pth"):
        inceptions(Site())[0].extract(scorers.images()[:1])
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    found = tmp_path / "hub" / "checkpoints" / weights.name
    found.write_bytes(b"anything")
    with pytest.raises(
        ValueError, match=r"inception: .* is not the published file: its SHA-256 is \w{8}, not 6726825d"
    ):
        inceptions(Site())[0].extract(scorers.images()[:1])
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"inception: .*holds other weights than Inception3 needs: there is no Conv2d"):
        inceptions(Site.of({"inception": tmp_path / "other.pth"}))[0].extract(scorers.images()[:1])
    torch.save({"fc.weight": Image.new("RGB", (1, 1))}, tmp_path / "object.pth")
    with pytest.raises(ValueError, match=r"inception: .*holds more than tensors, and loading that could run code"):
        inceptions(Site.of({"inception": tmp_path / "object.pth"}))[0].extract(scorers.images()[:1])
