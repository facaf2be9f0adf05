"""Weights found by name: in every class of diffusers the self-attention of its modules, and nothing unsaid."""

from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from symskew import inspect_weights
from symskew.layers import find_layers
from symskew.weights import weight_scores
from zoo.reference import run
from zoo.table import ENTRIES
from zoo.verify import pattern
from zoo.witness import watching

UNKNOWN = {  # whose number of heads is in no configuration, but in the code alone
    *("down_blocks.*.attentions.*", "mid_block.attentions.*", "up_blocks.*.attentions.*"),  # UNet1DModel
    "image_latents_temporal_encoder.attn1",  # I2VGenXLUNet
    "transformer_layes.*.attn",  # ControlNetUnionModel
}
UNREADABLE = "transformer_blocks.*.self_attn"  # StableAudio3DiTModel, whose attention is the difference of two


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.filterwarnings("ignore:In CPU autocast")
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", ENTRIES)
def test_every_class_is_inspected_as_its_modules_are(name, tmp_path):
    for entry in ENTRIES[name]:
        model: Any
        model, inputs = entry.tiny()
        with watching(model) as seen, torch.no_grad():
            run(model, inputs)
        layers = {layer.name: layer for layer in find_layers(model)}
        calls = [(each.within(set(layers)), each.square) for each in seen if each.kind == "attention"]
        itself = {layer for layer, square in calls if square}
        refused = {layer for layer in layers if {layer, pattern(layer)} & entry.refused.keys()}
        model.save_pretrained(tmp_path / entry.variant)
        if entry.refused == {UNREADABLE: entry.refused.get(UNREADABLE)}:
            with pytest.raises(ValueError, match=r"0\.self_attn: how this model fuses its 320 rows .* is unknown"):
                inspect_weights(tmp_path / entry.variant)
            continue
        found = inspect_weights(tmp_path / entry.variant)
        scored = {layer.layer: layer for layer in found.layers}
        assert not scored.keys() & found.skipped.keys()
        assert layers.keys() <= scored.keys() | found.skipped.keys()
        assert all(pattern(layer) in entry.besides for layer in scored.keys() - layers.keys())
        assert itself - {None} <= scored.keys()
        assert not {layer for layer, _ in calls} - itself - refused - {None} & scored.keys()
        for layer in scored:
            if scored[layer].heads is None:
                assert pattern(layer) in UNKNOWN
            else:
                assert scored[layer].heads == layers[layer].heads, layer


@pytest.mark.parametrize(
    ("name", "fused"),
    [
        ("Flux2Transformer2DModel", "to_qkv_mlp_proj"),
        ("PRXTransformer2DModel", "img_qkv_proj"),
        ("JoyImageEditTransformer3DModel", "img_attn_qkv"),
    ],
)
def test_fused_weights_are_taken_apart_as_the_model_does(name, fused, tmp_path):
    model: Any
    model, _ = ENTRIES[name][0].tiny()
    model.save_pretrained(tmp_path)
    layers = [layer for layer in inspect_weights(tmp_path).layers if hasattr(model.get_submodule(layer.layer), fused)]
    assert layers
    for layer in layers:
        weight = model.get_submodule(f"{layer.layer}.{fused}").weight.detach()
        assert layer.heads
        assert layer.head_dim
        inner = layer.heads * layer.head_dim
        q, k = weight[: 2 * inner].view(2, layer.heads, layer.head_dim, -1)
        assert layer.head_symmetry == pytest.approx(weight_scores(q, k).symmetry.tolist())


def test_single_blocks_of_original_checkpoints(tmp_path):
    """FLUX as its authors store it: queries, keys, values and an MLP in `linear1`, and the text beside the image."""
    torch.manual_seed(0)
    weights = {
        "double_blocks.0.img_attn.qkv.weight": torch.randn(24, 8),
        "double_blocks.0.txt_attn.qkv.weight": torch.randn(24, 8),
        "double_blocks.0.img_mlp.linear1.weight": torch.randn(32, 8),
        "single_blocks.0.linear1.weight": torch.randn(24 + 32, 8),
    }
    save_file(weights, tmp_path / "flux.safetensors")
    found = inspect_weights(tmp_path / "flux.safetensors", heads=2)
    assert [layer.layer for layer in found.layers] == ["double_blocks.0.img_attn", "single_blocks.0"]
    q, k = weights["single_blocks.0.linear1.weight"][:16].view(2, 2, 4, 8)
    assert found.layers[1].head_symmetry == pytest.approx(weight_scores(q, k).symmetry.tolist())
    assert found.skipped == {"double_blocks.0.txt_attn.qkv": "the text's side of joint attention"}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
@pytest.mark.parametrize("groups", [1, 2, None])
def test_text_encoder_of_kolors(groups, tmp_path):
    """Queries and keys are those of its own module, grouped in blocks or, where no keys are shared, head by head."""
    from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "ffn_hidden_size": 64, "kv_channels": 16, "num_attention_heads": 4, "seq_length": 32}
    sharing = {"multi_query_attention": groups is not None, "multi_query_group_num": groups or 1}
    config = ChatGLMConfig(num_layers=1, padded_vocab_size=64, original_rope=True, **sizes, **sharing)
    model: Any = ChatGLMModel(config).float()
    for parameter in model.parameters():  # which its class leaves as the memory was
        torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path)
    attention, kept = model.encoder.layers[0].self_attention, []
    attention.core_attention.register_forward_pre_hook(lambda _, args: kept.extend(args[:2]))
    with torch.no_grad():
        if attention.query_key_value.bias is not None:
            attention.query_key_value.bias.zero_()
        attention(torch.eye(64)[:, None], None, None)  # (tokens, batch, features)
    q, k = (each[:, 0].permute(1, 2, 0) for each in kept)
    (layer,) = inspect_weights(tmp_path).layers
    assert (layer.heads, layer.key_heads, layer.head_dim) == (4, groups or 4, 16)
    assert layer.head_symmetry == pytest.approx(weight_scores(q, k).symmetry.tolist(), abs=1e-5)


def test_heads_that_a_configuration_does_not_speak_of_are_unknown(tmp_path):
    """Qwen's gated queries are twice as many rows as its heads: no guess of how keys are shared."""
    weights = {"l.self_attn.q_proj.weight": torch.randn(64, 8), "l.self_attn.k_proj.weight": torch.randn(16, 8)}
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}')
    with pytest.raises(ValueError, match="how many heads share its 16 rows of keys is unknown"):
        inspect_weights(tmp_path)
