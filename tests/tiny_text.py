"""Tiny random models of transformers, built offline from its own configurations."""

import importlib
from typing import Any

import torch

from tiny import seeded

# transformers resolves its names lazily, out of sight of a type checker.
transformers: Any = importlib.import_module("transformers")
WORDS = 50
# Weights far larger than at the start of a training: attention that is all but uniform would hide mistakes.
_SIZES = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "initializer_range": 0.3,
}
_NAMES = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
_VISION = {"image_size": 16, "patch_size": 4}


def build(family: str, config: dict[str, Any], kind: str = "Model") -> Any:
    """A model of a family, in double precision: `LlamaConfig` makes a `LlamaModel`."""
    settings = getattr(transformers, f"{family}Config")(**config)
    return seeded(lambda: getattr(transformers, f"{family}{kind}")(settings)).double()


def llama(kind="Model", **changes):
    """Causal, rotary, grouped queries."""
    return build("Llama", _SIZES | _NAMES | {"vocab_size": WORDS, "num_key_value_heads": 2} | changes, kind)


def qwen2():
    """Causal, rotary, grouped queries, biases."""
    return build("Qwen2", _SIZES | _NAMES | {"vocab_size": WORDS, "num_key_value_heads": 2})


def qwen3():
    """Causal, rotary, grouped queries, QK-norm, heads wider than their share."""
    return build("Qwen3", _SIZES | _NAMES | {"vocab_size": WORDS, "num_key_value_heads": 2, "head_dim": 16})


def mistral():
    """Causal within a sliding window."""
    sizes = {"vocab_size": WORDS, "num_key_value_heads": 2, "sliding_window": 4}
    return build("Mistral", _SIZES | _NAMES | sizes)


def phi3():
    """Causal, with queries, keys and values from one projection."""
    return build("Phi3", _SIZES | _NAMES | {"vocab_size": WORDS, "num_key_value_heads": 2})


def gpt2(kind="Model", **changes):
    """Causal, learned positions, one transposed projection."""
    sizes = {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 32, "vocab_size": WORDS, "initializer_range": 0.3}
    return build("GPT2", sizes | _NAMES | changes, kind)


def neox():
    """Causal, partly rotary, queries, keys and values of each head together."""
    return build("GPTNeoX", _SIZES | _NAMES | {"vocab_size": WORDS})


def bert(kind="Model", **changes):
    """Bidirectional."""
    return build("Bert", _SIZES | {"vocab_size": WORDS} | changes, kind)


def modernbert():
    """Bidirectional, rotary, one layer of two within a window."""
    sizes = {"vocab_size": WORDS, "local_attention": 4, "global_attn_every_n_layers": 2}
    # Its layers are initialized by another number.
    return build("ModernBert", _SIZES | sizes | dict.fromkeys(("pad_token_id", "cls_token_id", "sep_token_id"), 0))


def vit(**changes):
    """Patches of an image, and a class token."""
    return build("ViT", _SIZES | _VISION | changes)


def clip_vision():
    """CLIP's picture half."""
    return build("CLIPVision", _SIZES | _VISION)


def t5(kind="Model"):
    """Encoder and decoder with relative positions as a bias, and no scale."""
    sizes = {"d_model": 32, "num_heads": 4, "num_layers": 2, "d_kv": 8, "d_ff": 48, "vocab_size": WORDS}
    return build("T5", sizes | {"decoder_start_token_id": 0, "initializer_factor": 3.0}, kind)


def bart(kind="Model"):
    """Encoder and decoder with one class for self- and cross-attention."""
    sides = {f"{side}_{what}": n for side in ("encoder", "decoder")
             for what, n in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 48))}  # fmt: skip
    sizes = {"d_model": 32, "vocab_size": WORDS, "init_std": 0.3, "max_position_embeddings": 32}
    return build("Bart", sides | sizes, kind)


def inputs(model: Any, batch=2, tokens=9, padding: str | None = None, seed=1) -> dict[str, Any]:
    """The keyword arguments of one forward; `padding` "left" or "right" shortens the first text by three tokens."""
    generator = torch.Generator().manual_seed(seed)
    if hasattr(model.config, "patch_size"):
        return {"pixel_values": torch.randn(batch, 3, 16, 16, generator=generator, dtype=torch.double)}
    given = {"input_ids": torch.randint(2, WORDS, (batch, tokens), generator=generator)}
    if model.config.is_encoder_decoder:
        given["decoder_input_ids"] = torch.randint(2, WORDS, (batch, tokens), generator=generator)
    if padding:
        given["attention_mask"] = torch.ones(batch, tokens, dtype=torch.long)
        given["attention_mask"][0, slice(None, 3) if padding == "left" else slice(-3, None)] = 0
    return given
