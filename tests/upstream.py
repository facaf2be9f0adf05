"""The published metrics' own packages, run on tiny weights: what the adapters are held to.

`python tests/upstream.py fetch` downloads them from PyPI (9 MB) into `.upstream`, checks their hashes, and unpacks
them; they cannot be installed, because none of them works with the libraries of today. `python tests/upstream.py
scores` prints what they say as JSON; with `--write` it is frozen in tests/data/scorers/upstream.json.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import types
import warnings
import zipfile
from pathlib import Path
from typing import Any

import scorers

FOLDER = Path(__file__).parent.parent / ".upstream"
PACKAGES = {
    "image-reward==1.5": (
        "image_reward-1.5-py3-none-any.whl",
        "b4917a680c3caa68a1ce3847cebab3ae6d5b4c409d7f8804f537b9d42662cf12",
    ),
    "hpsv2==1.2.0": (
        "hpsv2-1.2.0-py3-none-any.whl",
        "3ee638b06847bef24e1de43d0b5e3890a4a850034b4bf618e4bb3e78e2d806a1",
    ),
    "openai-clip==1.0.1": (
        "openai-clip-1.0.1.tar.gz",
        "cd40bf2f205c096c49524fcbff484339f793b52afd6e7ffad80a2fe108151721",
    ),
    "clean-fid==0.1.35": (
        "clean_fid-0.1.35-py3-none-any.whl",
        "757cf49d75debe9b07ab14955fe59c845a296deaf0616153b40c5e75b3cf87fb",
    ),
    # Of April 2023, when DINOv2 was under CC BY-NC 4.0; the code and weights of today are under Apache 2.0.
    "dinov2==0.0.1.dev2": (
        "dinov2-0.0.1.dev2-py3-none-any.whl",
        "d23754838b9d415233e1df1d5c2bf8f418d0e6654390f271ba46be389a5652cb",
    ),
}
"""What to download: the file of each, and its SHA-256."""


def missing() -> list[str]:
    """The packages that are not unpacked yet."""
    places = {
        "image-reward==1.5": "ImageReward",
        "hpsv2==1.2.0": "hpsv2",
        "openai-clip==1.0.1": "clip",
        "clean-fid==0.1.35": "cleanfid",
        "dinov2==0.0.1.dev2": "dinov2",
    }
    return [package for package, name in places.items() if not (FOLDER / name / "__init__.py").is_file()]


def fetch() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for package in missing():
            name, digest = PACKAGES[package]
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, package]
            subprocess.run(pip, check=True)
            content = (Path(folder) / name).read_bytes()
            if hashlib.sha256(content).hexdigest() != digest:
                sys.exit(f"{name} is not the file that was known: its SHA-256 differs")
            if name.endswith(".whl"):
                zipfile.ZipFile(io.BytesIO(content)).extractall(FOLDER)
            else:
                with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                    archive.extractall(folder, filter="data")
                (Path(folder) / name.removesuffix(".tar.gz") / "clip").rename(FOLDER / "clip")


def scores() -> dict[str, Any]:
    """The scores of every image with every prompt, and the tensors of the checkpoints that they were made with."""
    warnings.simplefilter("ignore")
    _old_surroundings()
    found: dict[str, Any] = {"shapes": {}, "scores": {}}
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(sys.stderr):
        folder = Path(name)
        for run in (_clip, _imagereward, _hps, _dinov2, _inception):
            for metric, shapes, values in run(folder):
                if shapes:
                    found["shapes"][metric] = shapes
                if values:
                    found["scores"][metric] = values
    return found


def _clip(folder: Path):
    import clip
    from ImageReward.models.AestheticScore import MLP, AestheticScore
    from ImageReward.models.CLIPScore import CLIPScore

    # Embeddings of 768, as AestheticScore has written down.
    sizes = (768, 224, 2, 128, 32, 77, 49408, 64, 1, 2)
    shapes = _shapes(clip.model.CLIP(*sizes))
    # What clip.load does with a state; its own way to read one from a file stumbles over the torch of today.
    model = clip.model.build_model(scorers.filled(shapes)).float()
    clip.load = lambda *_, **__: (model, clip.clip._transform(model.visual.input_resolution))
    files = []
    for place, image in enumerate(scorers.images()):
        files.append(str(folder / f"{place}.png"))
        image.save(files[-1])
    scorer = CLIPScore(None).eval()
    yield "clip", shapes, None
    yield "clip-l", None, [[scorer.score(prompt, file) for file in files] for prompt in scorers.PROMPTS]
    tokens = clip.tokenize(list(scorers.PROMPTS), truncate=True)
    yield "clip-tokens", None, tokens.tolist()
    scorer = AestheticScore(None)
    own = _shapes(MLP(768))
    scorer.mlp.load_state_dict(scorers.filled(own))
    scorer.eval()
    yield "aesthetic", own, [scorer.score("", file) for file in files]


def _imagereward(folder: Path):
    import ImageReward
    import torch
    from ImageReward.models.BLIP import blip_pretrain, med
    from ImageReward.models.BLIP.vit import VisionTransformer
    from transformers import BertTokenizer

    width = 128
    module: Any = sys.modules["ImageReward.ImageReward"]  # the package has a class of this name
    vit = VisionTransformer(img_size=224, patch_size=32, embed_dim=width, depth=2, num_heads=width // 64)
    vocabulary = scorers.write_vocabulary(folder / "bert")
    blip_pretrain.create_vit = lambda *_: (vit, width)
    blip_pretrain.init_tokenizer = lambda: BertTokenizer.from_pretrained(vocabulary.parent)
    head = module.MLP
    module.MLP = lambda _: head(scorers.MED["hidden_size"])
    # transformers 4 gave every model what transformers 5 no longer does.
    med.BertModel.all_tied_weights_keys = {}
    med.BertModel.get_head_mask = lambda _, mask, layers: [None] * layers
    med.BertModel.invert_attention_mask = lambda _, mask: (1.0 - mask[:, None, None, :].float()) * -1e4
    (folder / "med_config.json").write_text(json.dumps(scorers.MED))
    shapes = _shapes(module.ImageReward(med_config=str(folder / "med_config.json")))
    path = scorers.write_imagereward(folder / "imagereward", scorers.filled(shapes))
    scorer = ImageReward.load(str(path), device="cpu", med_config=str(folder / "med_config.json"))
    with torch.no_grad():
        values = [[scorer.score(prompt, image) for image in scorers.images()] for prompt in scorers.PROMPTS]
    yield "imagereward", shapes, values
    found = scorer.blip.tokenizer(list(scorers.PROMPTS), padding="max_length", truncation=True, max_length=35)
    yield "bert-tokens", None, found["input_ids"]


def _hps(folder: Path):
    import open_clip

    theirs = FOLDER / "hpsv2" / "src" / "open_clip" / "bpe_simple_vocab_16e6.txt.gz"  # which the wheel lacks
    theirs.write_bytes((Path(open_clip.__file__).parent / theirs.name).read_bytes())
    from hpsv2 import img_score
    from hpsv2.src.open_clip import create_model_and_transforms, factory

    factory._MODEL_CONFIGS["tiny"] = scorers.HPS_SHAPE
    quiet = {"image_mean": None, "image_std": None, "light_augmentation": True, "aug_cfg": {}, "output_dict": True}
    model, _, prepare = create_model_and_transforms(
        "tiny", None, precision="amp", device="cpu", with_score_predictor=False, with_region_predictor=False, **quiet
    )
    img_score.model_dict |= {"model": model, "preprocess_val": prepare}
    shapes = _shapes(model)
    path = scorers.write_hps(folder / "hps", scorers.filled(shapes))
    images = [image.convert("RGB") for image in scorers.images()]  # an alpha channel is a mask to it, which is refused
    yield (
        "hps",
        shapes,
        [[float(img_score.score(image, prompt, cp=str(path))[0]) for image in images] for prompt in scorers.PROMPTS],
    )


def _dinov2(folder: Path):
    import torch
    from dinov2.models.vision_transformer import DinoVisionTransformer
    from torchvision import transforms
    from torchvision.transforms.functional import to_tensor

    # As torch.hub makes dinov2_vitl14, and dgm-eval resizes for it.
    model = DinoVisionTransformer(**scorers.DINOV2_SHAPE, init_values=1.0, block_chunks=0).eval()
    shapes = _shapes(model)
    model.load_state_dict(scorers.filled(shapes))
    resize = transforms.Resize((224, 224), transforms.InterpolationMode.BICUBIC)
    normalise = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    images = [normalise(to_tensor(resize(image.convert("RGB")))) for image in scorers.images()]
    with torch.no_grad():
        yield "dinov2", shapes, [model(image[None])[0].tolist() for image in images]


def _inception(folder: Path):
    import numpy as np
    import torch
    from cleanfid.resize import build_resizer
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Empty(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: Any, **__: Any) -> Any:
            return None

    torch.save({}, folder / "empty.pth")
    shapes = _shapes(Empty("x", ["2048"], feature_extractor_weights_path=str(folder / "empty.pth")))
    path = scorers.write_inception(folder / "inception", scorers.filled(shapes))
    model = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(path))
    arrays = [np.array(image.convert("RGB")) for image in scorers.images()]
    with torch.no_grad():
        found = [model(torch.from_numpy(array).permute(2, 0, 1)[None])[0][0] for array in arrays]
    yield "inception", shapes, [row[:: scorers.EVERY].tolist() for row in found]
    resize = build_resizer("clean")
    yield "clean", None, [resize(array).flatten()[:: scorers.EVERY_PIXEL].tolist() for array in arrays]


def _shapes(module: Any) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in module.state_dict().items()}


def _old_surroundings() -> None:
    """What the packages import that is gone, or that has nothing to do with scoring."""
    import packaging.version
    from transformers import modeling_utils, pytorch_utils

    def module(name: str, **content: Any) -> None:
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(content)

    def none(*_: Any, **__: Any) -> None:
        return None

    module("pkg_resources", packaging=packaging)
    for name in ("fairscale", "fairscale.nn", "fairscale.nn.checkpoint", "clint"):
        module(name)
    module("fairscale.nn.checkpoint.checkpoint_activations", checkpoint_wrapper=none)
    module("clint.textui", progress=none)
    module("turtle", forward=none)
    module("ImageReward.ReFL")  # its training
    for name in ("apply_chunking_to_forward", "prune_linear_layer"):
        setattr(modeling_utils, name, getattr(pytorch_utils, name))
    modeling_utils.find_pruneable_heads_and_indices = none  # pyright: ignore[reportAttributeAccessIssue]
    sys.path.insert(0, str(FOLDER))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=["fetch", "scores"])
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if given.do == "fetch":
        fetch()
    else:
        text = json.dumps(scores())
        if given.write:
            scorers.FROZEN.write_text(text + "\n")
        print(text)
