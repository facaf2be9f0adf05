"""What configurations say of heads: for the layers they speak of, and for no others."""

import pytest

from symskew.configured import Heads, configured_heads

UNET = {"down_block_types": ["CrossAttnDownBlock2D"] * 3, "attention_head_dim": [5, 10, 20]}
ATTENTION = "attentions.0.transformer_blocks.0.attn1"


@pytest.mark.parametrize(
    ("config", "layer", "heads"),
    [
        ({"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64}, "layers.0.self_attn", (32, 64, 8)),
        ({"n_head": 4, "multi_query": True}, "h.0.attn", (4, None, 1)),
        ({"num_attention_heads": 4, "multi_query_group_num": 2}, "a", (4, None, None)),
        ({"num_attention_heads": 4, "multi_query_group_num": 2, "multi_query_attention": True}, "a", (4, None, 2)),
        ({"encoder_attention_heads": 4, "decoder_attention_heads": 8}, "decoder.layers.0.self_attn", (8, None, None)),
        ({"text_config": {"num_heads": 3}, "vision_config": {"num_heads": 5}}, "visual.blocks.0.attn", (5, None, None)),
        ({"num_heads": [3, 6, 12]}, "encoder.layers.1.blocks.0.attention.self", (None, None, None)),  # Swin
        ({"axes_dims": [16, 24, 24], "axes_dims_a": [32]}, "blocks.0.self_attention", (None, 64, None)),
        ({"axes_dims": [16, 24, 24], "axes_dims_a": [32]}, "blocks.0.audio_dec.self_attention", (None, 32, None)),
    ],
)
def test_heads(config, layer, heads):
    assert configured_heads(config, layer) == Heads(*heads)


def test_attention_head_dim_is_a_number_of_heads_in_the_blocks_of_some_unets_only():
    layers = [f"down_blocks.1.{ATTENTION}", f"mid_block.{ATTENTION}", f"up_blocks.0.{ATTENTION}"]
    for kind in ("UNet2DConditionModel", "ControlNetModel"):
        found = [configured_heads(UNET | {"_class_name": kind}, layer) for layer in layers]
        assert found == [Heads(10), Heads(20), Heads(20)]
        assert configured_heads(UNET | {"_class_name": kind}, "down_blocks.1.attentions.0") == Heads(None, 10)
    found = [configured_heads(UNET | {"_class_name": "UNet3DConditionModel"}, layer) for layer in layers]
    assert found == [Heads(None, 10), Heads(None, 20), Heads(None, 20)]
    assert configured_heads(UNET | {"_class_name": "UNetOfTomorrow"}, layers[0]) == Heads()
    assert configured_heads(UNET | {"_class_name": "ControlNetUnionModel"}, "transformer_layes.0.attn") == Heads()
