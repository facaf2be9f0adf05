"""Inspection of checkpoints: the projections found in files are those that the models compute with."""

import csv
import io
import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

import symskew.ensemble
import tiny
import tiny_text
from symskew import inspect_weights
from symskew.checkpoint import find_parts
from symskew.cli.app import run
from symskew.configured import Heads
from symskew.layers import find_layers
from symskew.seam import Tap
from symskew.session import Session
from symskew.weights import weight_scores


class Witness(Tap):
    def attend(self, call, inner):
        self.kept = call.q[:, :, 0], call.k[:, :, 0], call.x()[:, 0]
        return inner()


def gpt_bigcode():
    sizes = {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 32, "vocab_size": 50, "multi_query": True}
    return tiny_text.build("GPTBigCode", sizes)


def gpt_bigcode_by_head():
    sizes = {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 32, "vocab_size": 50, "multi_query": False}
    return tiny_text.build("GPTBigCode", sizes)


def distilbert():
    return tiny_text.build("DistilBert", {"dim": 32, "n_heads": 4, "n_layers": 2, "hidden_dim": 48, "vocab_size": 50})


FAMILIES = [
    *(tiny_text.llama, tiny_text.mistral, tiny_text.phi3, tiny_text.gpt2, tiny_text.neox, tiny_text.bert),
    *(tiny_text.modernbert, tiny_text.t5, tiny_text.bart, tiny_text.vit, distilbert, gpt_bigcode),
    gpt_bigcode_by_head,
]


@pytest.mark.parametrize("build", FAMILIES, ids=lambda build: build.__name__)
def test_projections_are_those_the_model_computes_with(build, tmp_path):
    """At the first position, where rotary positions turn nothing: q = W_Qᵀ x and k = W_Kᵀ x, head by head."""
    model = build()
    for module in model.modules():
        if isinstance(getattr(module, "bias", None), torch.nn.Parameter) and not isinstance(module, torch.nn.LayerNorm):
            module.bias.data.zero_()
    model.save_pretrained(tmp_path)
    taps = [Witness(layer) for layer in find_layers(model)]
    with Session(model, taps), torch.no_grad():
        model(**tiny_text.inputs(model, batch=5, tokens=3))
    (part,) = find_parts(tmp_path, Heads())
    sites, _ = part.find()
    if build is not tiny_text.vit:  # which transformers stores under older names
        assert [site.name for site in sites] == [tap.layer.name for tap in taps]
    for site, tap in zip(sites, taps, strict=True):
        wq, wk = part.read(site)
        q, k, x = tap.kept
        torch.testing.assert_close(torch.einsum("bc,hdc->bhd", x, wq), q)
        k = k[:, :: k.shape[1] // wk.shape[0]]  # transformers repeats shared keys where there is a mask
        torch.testing.assert_close(torch.einsum("bc,hdc->bhd", x, wk), k)


def test_scores_of_layers_and_heads_are_those_of_the_whole_matrices(tmp_path):
    model = tiny_text.llama()
    model.save_pretrained(tmp_path)
    found = inspect_weights(tmp_path)
    attention = model.layers[1].self_attn
    wq = attention.q_proj.weight.view(4, 8, 32).detach()
    wk = attention.k_proj.weight.view(2, 8, 32).detach().repeat_interleave(2, 0)
    w = wq.mT @ wk
    layer = found.layers[1]
    assert (layer.heads, layer.key_heads, layer.head_dim, layer.features) == (4, 2, 8, 32)
    for scores, matrix in ((layer.head_symmetry, w), ([layer.symmetry], w.sum(0, keepdim=True))):
        sym, skew = (matrix + matrix.mT) / 2, (matrix - matrix.mT) / 2
        wanted = (sym.square().sum((1, 2)) - skew.square().sum((1, 2))) / matrix.square().sum((1, 2))
        assert scores == pytest.approx(wanted.tolist())
    whole = weight_scores(torch.eye(32).double()[None], w.sum(0)[None])  # W = 1ᵀ W
    assert layer.directionality == pytest.approx(whole.directionality.item())


def test_pipelines_have_parts_and_heads_of_each_block(tmp_path):
    tiny.pipeline_sdxl().save_pretrained(tmp_path)
    found = inspect_weights(tmp_path)
    assert found.parts == ["unet", "text_encoder", "text_encoder_2"]
    layers = {layer.name: layer.heads for layer in find_layers(tiny.unet_sdxl())}
    unet = inspect_weights(tmp_path, part="unet")
    assert {layer.layer: layer.heads for layer in unet.layers} == layers
    assert [layer.layer for layer in unet.layers] == list(layers)  # in the order they run
    assert [layer.depth for layer in unet.layers] == pytest.approx([(i + 0.5) / 11 for i in range(11)])
    with pytest.raises(ValueError, match="has no part 'vae'; there are 'unet', 'text_encoder', 'text_encoder_2'"):
        inspect_weights(tmp_path, part="vae")


@pytest.mark.parametrize("build", [tiny.sd3, tiny.flux, tiny.pixart], ids=lambda build: build.__name__)
def test_denoising_transformers(build, tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    found = inspect_weights(tmp_path)
    assert [layer.layer for layer in found.layers] == [layer.name for layer in find_layers(model)]
    assert {layer.heads for layer in found.layers} == {2}


def test_shards_and_single_files_hold_the_same(tmp_path):
    model = tiny_text.llama()
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    whole = inspect_weights(tmp_path / "whole")
    assert inspect_weights(tmp_path / "shards").layers == whole.layers
    (tmp_path / "shards" / "model.safetensors.index.json").unlink()
    assert inspect_weights(tmp_path / "shards").layers == whole.layers
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((tmp_path / "whole" / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"heads share its 16 rows of keys is unknown; state heads or head_dim"):
        inspect_weights(alone)
    assert inspect_weights(alone, heads=4).layers == whole.layers
    assert inspect_weights(alone, head_dim=8).layers == whole.layers
    with pytest.raises(ValueError, match="its 32 rows of queries are not those of heads 7 wide"):
        inspect_weights(alone, head_dim=7)
    with pytest.raises(ValueError, match=r"queries \(32, 32\) and keys \(16, 32\) are not those of 3 heads"):
        inspect_weights(alone, heads=3)


def test_torchs_own_attention(tmp_path):
    attention = torch.nn.MultiheadAttention(16, 2)
    path = tmp_path / "model.safetensors"
    save_file({f"blocks.0.attn.{name}": value for name, value in attention.state_dict().items()}, path)
    (layer,) = inspect_weights(path, heads=2).layers
    q, k, _ = attention.in_proj_weight.detach().chunk(3)
    wanted = weight_scores(q.view(2, 8, 16), k.view(2, 8, 16))
    (unknown,) = inspect_weights(path).layers
    assert (unknown.heads, unknown.head_symmetry, unknown.symmetry) == (None, (), layer.symmetry)
    assert str(inspect_weights(path)).splitlines()[1].startswith("blocks.0.attn  ?      16 ")
    assert layer.layer == "blocks.0.attn"
    # Scores near 0 are differences of squares of order 1, which float32 knows to 1e-7.
    assert layer.head_symmetry == pytest.approx(wanted.symmetry.tolist(), abs=1e-6)


def test_what_cannot_be_read_is_named(tmp_path):
    weights = {
        "a.to_q.weight": torch.randn(8, 8),
        "a.to_k.weight": torch.randn(8, 8),
        "b.to_q.weight": torch.ones(8, 8, dtype=torch.int8),
        "b.to_k.weight": torch.ones(8, 8, dtype=torch.int8),
        "c.query_key_value.weight": torch.randn(24, 8),
        "d.q.weight": torch.randn(8, 8, 1, 1),
        "d.k.weight": torch.randn(8, 8, 1, 1),
        "e.attn2.to_q.weight": torch.randn(8, 8),
        "e.attn2.to_k.weight": torch.randn(8, 8),
        "f.qkv_proj.weight": torch.randn(16, 8),
        "g.to_q.weight": torch.randn(8, 8),
        "g.to_k.weight": torch.randn(8, 6),
        "h.mixer.in_proj.weight": torch.randn(24, 8),
    }
    path = tmp_path / "some.safetensors"
    save_file(weights, path)
    found = inspect_weights(path)
    assert [layer.layer for layer in found.layers] == ["a"]
    assert found.skipped == {
        "b": "its weights are quantized (I8); inspect the checkpoint they were made from",
        "c": "how this model fuses its 24 rows of queries, keys and values is unknown",
        "d": "its weights (8, 8, 1, 1) are no matrix",
        "e.attn2": "cross-attention, by its name",
        "f": "how this model fuses its 16 rows of queries, keys and values is unknown",
        "g": "queries (8, 8) and keys (8, 6) are not of one input",
    }
    assert "not read: b: its weights are quantized (I8)" in str(found)
    save_file({name: value for name, value in weights.items() if name[0] in "bh"}, path)
    with pytest.raises(ValueError, match=r"no self-attention weights could be read in .*b: its weights are quantized"):
        inspect_weights(path)
    save_file({"h.mixer.in_proj.weight": torch.randn(24, 8)}, path)
    with pytest.raises(ValueError, match=r"no self-attention weights could be read in .*: h.mixer.in_proj.weight"):
        inspect_weights(path)


def test_sources_that_are_none(tmp_path):
    with pytest.raises(
        ValueError, match=r"there is no checkpoint 'nowhere': give a folder, a .safetensors file or a hub"
    ):
        inspect_weights("nowhere")
    with pytest.raises(ValueError, match="someone/something is not on this disk; first: hf download someone/something"):
        inspect_weights("someone/something")
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"expected .safetensors files in .*, found only pytorch_model.bin"):
        inspect_weights(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"model.safetensors cannot be read, it may be damaged"):
        inspect_weights(tmp_path)


def test_only_queries_and_keys_are_read(tmp_path, monkeypatch):
    """Memory is bounded by one layer: nothing but the projections is ever taken from the file, one by one."""
    import safetensors

    tiny_text.bert().save_pretrained(tmp_path)
    taken, opened = [], safetensors.safe_open

    class Watched:
        def __init__(self, *args):
            self.file = opened(*args)

        def __enter__(self):
            return self

        def __exit__(self, *args):
            pass

        def __getattr__(self, name):
            return getattr(self.file, name)

        def get_tensor(self, name):
            taken.append(name.rpartition("self.")[2])
            return self.file.get_tensor(name)

    monkeypatch.setattr(safetensors, "safe_open", Watched)
    inspect_weights(tmp_path)
    assert taken == ["query.weight", "key.weight"] * 2


def test_results_are_handed_on(tmp_path):
    tiny_text.llama().save_pretrained(tmp_path)
    found = inspect_weights(tmp_path)
    rows = found.rows
    assert len(rows) == 2 * (1 + 4)
    assert [row["head"] for row in rows] == [None, 0, 1, 2, 3] * 2
    assert json.loads(found.to_json())["rows"] == rows
    read = list(csv.DictReader(io.StringIO(found.to_csv(tmp_path / "scores.csv"))))
    assert [float(row["symmetry"]) for row in read] == [row["symmetry"] for row in rows]
    assert (tmp_path / "scores.csv").read_text() == found.to_csv()
    frame = found.to_pandas()
    assert frame["symmetry"].tolist() == [row["symmetry"] for row in rows]
    assert found.median() == pytest.approx(frame[frame["head"].isna()]["symmetry"].median())
    assert str(found).splitlines()[1].startswith("layers.0.self_attn  4/2    32 ")
    found.plot(tmp_path / "scores.png")
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="'energy' is no score"):
        found.median("energy")
    with pytest.raises(ValueError, match="no layer of 'unet'; there are ''"):
        found.median(part="unet")


def test_the_shipped_model_reads_as_it_computes():
    """The UNet's own cross-attention is as wide as its image, and still is none of these."""
    found = inspect_weights(symskew.ensemble.path("ensemble-sdxl"))
    assert len(found.layers) == 7 + 3 + 3
    assert not any("attn2" in layer.layer for layer in found.layers)
    assert set(found.skipped.values()) == {"cross-attention, by its name"}
    assert all(name.startswith("unet.") and name.endswith("attn2") for name in found.skipped)
    assert len(found.skipped) == 7
    assert re.fullmatch(r"not read: unet\.\S+ and 6 more: cross-attention, by its name", str(found).splitlines()[-1])
    stored = load_file(symskew.ensemble.path("ensemble-sdxl") / "unet" / "diffusion_pytorch_model.safetensors")
    layer = found.layers[2]
    q, k = (stored[f"{layer.layer}.to_{side}.weight"].float() for side in "qk")
    w = q.T @ k
    assert layer.symmetry == pytest.approx(((w * w.T).sum() / w.square().sum()).item(), abs=1e-5)


def test_command(tmp_path, capsys):
    assert run(["inspect", "ensemble-sdxl", "--part", "unet", "--plot", str(tmp_path / "unet.png")]) == 0
    shown = capsys.readouterr().out
    assert "unet.mid_block.attentions.0.transformer_blocks.0.attn1" in shown
    assert "unet: median over layers: symmetry +" in shown
    assert (tmp_path / "unet.png").is_file()
    assert run(["inspect", "ensemble-sdxl", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 13 + sum([2, 4, 4, 4, 4, 2, 2]) + 6 * 4
    assert run(["inspect", "ensemble-sdxl", "--csv"]) == 0
    assert capsys.readouterr().out.startswith("part,layer,index,depth,head,")
    assert run(["inspect", "nowhere"]) == 2
    assert "there is no checkpoint 'nowhere'" in capsys.readouterr().err
    assert run(["inspect", "ensemble-sdxl", "--csv", "--json"]) == 2
    assert "give --json or --csv, not both" in capsys.readouterr().err
