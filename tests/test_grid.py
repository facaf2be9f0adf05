"""Where in the image the tokens of a model are, from what it is given."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from symskew.grid import find_grids
from zoo.table import ENTRIES


class Model(nn.Module):
    """A root with a configuration."""

    def __init__(self, **config):
        super().__init__()
        self.config = SimpleNamespace(**config)


def ids(*sizes, more=0, start=0):
    places = torch.stack(torch.meshgrid(*map(torch.arange, sizes), indexing="ij"), -1).flatten(0, -2)
    return torch.cat([places + start, torch.zeros(len(places), more)], 1)


TOKENS = torch.zeros(1, 12, 4)
LATENTS = torch.zeros(1, 4, 2, 6, 8)
TEXT = torch.zeros(5, 3)


@pytest.mark.parametrize(
    ("config", "given", "grids"),
    [
        ({}, {"hidden_states": TOKENS, "img_ids": ids(1, 3, 4)}, [(3, 4)]),
        ({}, {"hidden_states": TOKENS, "img_ids": ids(1, 3, 4, more=1, start=7)[None]}, [(3, 4)]),
        ({}, {"hidden_states": TOKENS, "img_ids": ids(2, 2, 3)}, [(2, 2, 3)]),
        ({}, {"hidden_states": TOKENS, "position_ids": torch.cat([TEXT, ids(1, 3, 4)])}, [(3, 4)]),
        (
            {},
            {
                "hidden_states": torch.zeros(1, 17, 4),
                "position_ids": torch.cat([TEXT, ids(1, 3, 4)])[None],
                "indicator": torch.tensor([[3] * 5 + [2] * 12]),
            },
            [(3, 4)],
        ),
        ({}, {"hidden_states": TOKENS, "img_shapes": [[(1, 3, 4), (1, 9, 9)]]}, [(3, 4)]),
        ({}, {"hidden_states": TOKENS, "shape_list": [[(2, 2, 3)]]}, [(2, 2, 3)]),
        ({}, {"hidden_states": TOKENS, "num_frames": 2, "height": 2, "width": 3}, [(2, 2, 3)]),
        ({"patch_size": 2}, {"hidden_states": LATENTS[:, :, 0]}, [(3, 4)]),
        ({"patch_size": 2}, {"hidden_states": LATENTS}, [(2, 3, 4), (3, 4)]),
        ({"patch_size": 2, "patch_size_t": 2}, {"hidden_states": LATENTS}, [(1, 3, 4), (3, 4)]),
        ({"patch_size": (1, 2, 2), "in_channels": 2}, {"hidden_states": LATENTS}, [(4, 3, 4), (3, 4)]),
        ({"patch_size": (1, 2, 2), "in_visual_dim": 8}, {"hidden_states": LATENTS}, [(4, 1, 3), (1, 3)]),
        ({"all_patch_size": (2,)}, {"x": [LATENTS[0], LATENTS[0]]}, [(2, 3, 4), (3, 4)]),
        ({}, {"sample": LATENTS[:, :, 0]}, [(6, 8), (3, 4), (2, 2), (1, 1)]),
        ({}, {"input_ids": torch.zeros(1, 4, 4).long()}, [(4, 4), (2, 2), (1, 1)]),
        ({}, {"input_ids": torch.zeros(1, 16).long(), "pixel_values": LATENTS[:, :, 0]}, []),
        ({}, {"hidden_states": torch.zeros(1, 16, 4)}, []),  # square, but nobody says that it is an image's
    ],
)
def test_grids(config, given, grids):
    assert find_grids(Model(**config), (), given) == grids


def test_a_layer_of_its_own_is_taken_for_a_square():
    assert find_grids(nn.Linear(4, 4), (torch.zeros(2, 16, 4),), {}) == [(4, 4)]
    assert find_grids(nn.Linear(4, 4), (torch.zeros(2, 15, 4),), {}) == []


def test_images_after_texts_of_different_length_are_in_no_one_place():
    (entry,) = ENTRIES["Lumina2Transformer2DModel"]
    model, inputs = entry.tiny()
    assert find_grids(model, (), inputs) == [(3, 4)]
    inputs["encoder_attention_mask"] = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    with pytest.raises(
        ValueError, match="Lumina2Transformer2DModel places them after their texts, which differ in length"
    ):
        find_grids(model, (), inputs)
