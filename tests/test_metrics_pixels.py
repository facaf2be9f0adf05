"""Images as networks take them, against the processors of transformers, and what must not depend on anything else."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import scorers
from symskew.metrics.pixels import MEAN, STD, converted, cropped, in_batches, padded, tensors


@pytest.mark.parametrize("size", [224, 96])
def test_cropped_is_the_processor_of_transformers_that_uses_pil(size):
    theirs = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    for image in scorers.images()[:4]:
        assert torch.equal(cropped(image, size), torch.tensor(theirs(image)["pixel_values"][0]))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_converted_is_that_processor_with_images_of_every_mode(mode):
    image = scorers.images()[5]
    image = image if mode == "RGBA" else image.convert("RGB").convert(mode)
    # Transformers 4 converted so, and 5 puts an image with an alpha channel on white.
    theirs = CLIPImageProcessorPil()(image.convert("RGB") if mode == "RGBA" else image)
    assert torch.equal(converted(image, 224), torch.tensor(theirs["pixel_values"][0]))
    assert torch.equal(converted(image, 224), cropped(image, 224)) == (mode in ("RGB", "L", "LA"))


@pytest.mark.parametrize(("width", "height", "box"), [(300, 100, (0, 74, 224, 149)), (50, 100, (56, 0, 168, 224))])
def test_padded_shows_the_whole_image_on_black(width, height, box):
    found = padded(Image.new("RGB", (width, height), (255, 255, 255)), 224)
    pixels = found * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    left, top, right, bottom = box
    assert pixels[:, top:bottom, left:right].min() > 0.99
    pixels[:, top:bottom, left:right] = 0
    assert pixels.abs().max() < 1e-6


def test_padded_leaves_an_image_of_the_right_size_alone():
    image = scorers.images()[0]
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    expected = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(padded(image, 224), expected)


def test_every_mode_of_eight_bits_is_taken_and_more_are_refused():
    image = scorers.images()[0]
    modes = [image.convert(mode) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK")]
    for prepare in (cropped, converted, padded):
        assert tensors("x", modes, prepare, 32).shape == (7, 3, 32, 32)
        assert tensors("x", [], prepare, 32).shape == (0, 3, 32, 32)
    for mode in ("I;16", "I", "F"):
        with pytest.raises(ValueError, match=f"x: expected images of 8 bits a channel, got one .* in mode {mode}"):
            tensors("x", [image, Image.new(mode, (8, 8))], cropped, 32)


def test_batches_are_always_as_large_and_give_rows_for_rows():
    seen = []

    def compute(a, b):
        seen.append(a.shape)
        return a * b

    a, b = torch.arange(11.0)[:, None], torch.arange(11, 22)[:, None]
    assert torch.equal(in_batches(compute, a, b), a * b)
    assert seen == [(8, 1), (8, 1)]
    assert in_batches(compute, a[:0], b[:0]).shape == (0, 1)
