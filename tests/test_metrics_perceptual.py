"""LPIPS as a squared distance of points, against the lpips package, with a trunk of random weights."""

import warnings
from dataclasses import replace

import lpips
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from scenes import seeds
from symskew.metrics import Site, perceptual
from symskew.metrics.perceptual import ALEXNET, METRICS, TRUNK, AlexNetLayers

PROMPT = "a red three and a blue seven"
METRIC = METRICS[0]


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch")
    (folder / "hub" / "checkpoints").mkdir(parents=True)
    torch.manual_seed(0)
    weights = torchvision.models.alexnet(weights=None).features.state_dict(prefix="features.")
    torch.save(weights, folder / "hub" / "checkpoints" / TRUNK)
    return folder


@pytest.fixture(scope="module")
def theirs(trunk):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    weights = torch.load(trunk / "hub" / "checkpoints" / TRUNK, weights_only=True)
    for part in (network.net.slice1, network.net.slice2, network.net.slice3, network.net.slice4, network.net.slice5):
        part.load_state_dict({name: weights[f"features.{name}"] for name in part.state_dict()})
    return network


@pytest.mark.parametrize("size", [(64, 64), (120, 90)])
def test_it_agrees_with_the_package(trunk, theirs, size):
    images = [image.resize(size) for image in seeds(PROMPT, 3)]
    found = METRIC.pairs(
        AlexNetLayers(Site.of({"alexnet": trunk / "hub" / "checkpoints" / TRUNK})).extract(images), PROMPT
    )
    tensors = [torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1 for image in images]
    with torch.no_grad():
        expected = {(a, b): theirs(tensors[a], tensors[b]).item() for a in range(3) for b in range(a + 1, 3)}
    assert {(a, b): pytest.approx(value, rel=1e-4) for a, b, value in found} == expected
    assert min(expected.values()) > 1e-3


def test_it_looks_where_torch_keeps_its_weights_and_draws_no_random_number(trunk, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(trunk))
    monkeypatch.setattr(perceptual, "ALEXNET", replace(ALEXNET, digests={}))  # random weights have another
    eye = AlexNetLayers(Site())
    state = torch.random.get_rng_state()
    together = eye.extract(seeds(PROMPT, 3))["layers"]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(eye.extract(seeds(PROMPT, 3)[1:2])["layers"], together[1:2])
    assert together.shape == (3, 64 * 15**2 + 192 * 7**2 + (384 + 256 + 256) * 3**2)
    assert len(eye.weights) == 64


def test_equal_images_are_not_apart(trunk):
    features = AlexNetLayers(Site.of({"alexnet": trunk / "hub" / "checkpoints" / TRUNK})).extract(seeds(PROMPT, 1) * 3)
    assert METRIC.score(features, PROMPT) == 0


def test_absent_and_wrong_weights_and_mixed_sizes_are_refused(trunk, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    missing = rf"alexnet: the weights are not on this machine; get it by: curl .*{TRUNK}"
    with pytest.raises(FileNotFoundError, match=missing):
        AlexNetLayers(Site()).extract(seeds(PROMPT, 2))
    with pytest.raises(FileNotFoundError, match=missing):
        _ = AlexNetLayers(Site()).weights
    monkeypatch.setenv("TORCH_HOME", str(trunk))
    with pytest.raises(ValueError, match=r"alexnet: .* is not the published file: .*, not 7be5be79"):
        AlexNetLayers(Site()).extract(seeds(PROMPT, 2))
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(
        ValueError, match=r"other.pth holds other weights than alexnet needs: there is no slice1.0.weig"
    ):
        AlexNetLayers(Site.of({"alexnet": tmp_path / "other.pth"})).extract(seeds(PROMPT, 2))
    eye = AlexNetLayers(Site.of({"alexnet": trunk / "hub" / "checkpoints" / TRUNK}))
    with pytest.raises(ValueError, match=r"images of one size, got \[\(64, 64\), \(70, 64\)\]"):
        eye.extract([seeds(PROMPT, 1)[0], Image.new("RGB", (70, 64))])
    monkeypatch.setattr(perceptual, "MOST", 100_000)
    with pytest.raises(ValueError, match="the layers of 3 images of 64×64 take 0 GB, more than 0; compare fewer seeds"):
        eye.extract(seeds(PROMPT, 3))
