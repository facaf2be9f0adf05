"""What a study will cost and lack, before it is run: pipelines without weights, operations, rehearsed tables."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import tiny
from folders import ensemble_folder, plain_folder
from symskew.cli.app import run
from symskew.models import find_model, load_model
from symskew.protocols.rehearsal import rehearse
from symskew.study import Options, Study, run_study
from symskew.study.forecast import SCORING, TERAFLOPS, forecast
from symskew.study.missing import find_quietly, missing
from symskew.study.run import check_setting
from symskew.study.skeleton import count_work, skeleton, stages_of
from symskew.study.store import Store

STUDIES = Path(__file__).parent.parent / "studies"
SDXL, SD3 = "stabilityai/stable-diffusion-xl-base-1.0", "stabilityai/stable-diffusion-3-medium-diffusers"


@pytest.fixture(scope="module")
def sd3():
    return skeleton(SD3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return ensemble_folder(tmp_path_factory.mktemp("model") / "model")


def work_of(model, size=(1024, 1024)) -> Any:
    return count_work(model, size)


def study(settings=None, model=SD3, **changes):
    return Study.of({
        "model": model, "steps": 10, "guidance": 5, "size": 1024, "prompts": {"mine": ["a", "b", "c"]},
        "seeds": {"select": 0, "eval": "1-2"}, "settings": settings or {"vanilla": {}},
        "metrics": ["imagereward", "clip-l"],
    } | changes)  # fmt: skip


# Without weights


def test_published_pipelines_have_their_published_sizes_and_no_weights(sd3):
    sdxl: Any = skeleton(SDXL)
    for model, billions in ((sdxl, 2.567), (sd3, 2.028)):
        root = getattr(model.pipe, "unet", None) or model.pipe.transformer
        assert all(parameter.is_meta for parameter in root.parameters())
        assert sum(parameter.numel() for parameter in root.parameters()) / 1e9 == pytest.approx(billions, abs=1e-3)
    # 4 L²C for each layer, by hand.
    work = work_of(sdxl)
    assert work.attention == 10 * 4 * 4096**2 * 640 + 60 * 4 * 1024**2 * 1280
    assert work.by_heads == 10 * 10 * 4 * 4096**2 * 640 + 20 * 60 * 4 * 1024**2 * 1280
    assert work.forward == pytest.approx(6.76e12, rel=1e-3)
    assert work_of(sd3).attention == 24 * 4 * (4096 + 77 + 256) ** 2 * 1536
    assert stages_of(sdxl) == stages_of(sd3) == ["down", "mid", "up"]
    assert skeleton("nobody/nothing") is None


def test_what_is_counted_without_numbers_is_counted_with_them(folder):
    model = load_model(str(folder))
    bones = skeleton(model.files)
    assert bones is not None
    work = work_of(bones, (64, 64))
    inputs = tiny.inputs(model.pipe.unet, batch=1, text=77, size=16)
    # The counter does not know the fused kernel of a CPU.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.pipe.unet(**inputs)
    assert work.forward == counter.get_total_flops()
    assert {p.device.type for p in bones.pipe.unet.parameters()} == {"meta"}


@pytest.mark.parametrize(
    "knobs",
    [
        {"alpha": 2, "layers": "up"},
        {"alpha": 2, "layers": "upp"},
        {"alpha": 2, "start": 0.91, "stop": 0.95},
        {"method": "pag", "scale": 3},
        {"method": "freeu", "b1": 1.1, "b2": 1.2, "s1": 0.9, "s2": 0.6},
        {"arguments": {"clip_skip": 1}},
        {"arguments": {"max_sequence_length": 77}},
        {"size": 65},
    ],
)
def test_settings_are_refused_alike_with_and_without_weights(knobs, folder):
    said = []
    some = study(
        {"vanilla": {}, "other": knobs}, size=64, runs=[{"diagnose": {"states": "input"}, "settings": "vanilla"}]
    )
    bones: Any = skeleton(find_model(str(folder)))
    for model in (load_model(str(folder)), bones):
        try:
            said.append(check_setting(model, some, some.settings["other"])[1].get("steps"))
        except ValueError as error:
            said.append(str(error))
    assert said[0] == said[1]
    assert isinstance(said[0], str) == (knobs in REFUSED)


REFUSED = [
    {"alpha": 2, "layers": "upp"},
    {"alpha": 2, "start": 0.91, "stop": 0.95},
    {"arguments": {"max_sequence_length": 77}},
    {"size": 65},
]


def test_a_pipeline_of_another_kind_is_counted_or_left_alone(tmp_path):
    files = find_model(str(plain_folder(tmp_path / "plain")))
    assert skeleton(files) is not None
    (tmp_path / "plain" / "unet" / "config.json").unlink()
    assert skeleton(files) is None


# The cost


def test_the_cost_is_what_its_arithmetic_says(sd3):
    settings = {"vanilla": {}, "static": {"alpha": [1.1, 1.2]}, "pag": {"method": "pag", "scale": 3},
                "exact": {"alpha": 1.1, "space": "input"}, "null": {"method": "null", "alpha": 1.1}}  # fmt: skip
    runs = [{"settings": "vanilla", "diagnose": True}, {"settings": ["static", "exact", "null"], "seeds": "eval"},
            {"settings": "vanilla", "limit": 1}]  # fmt: skip
    found = forecast(study(settings, runs=runs), sd3, extractors=2)
    work = work_of(sd3)
    rows = {row.setting: row for row in found.rows}
    assert [(name, row.images, row.diagnosed) for name, row in rows.items()] == [
        ("vanilla", 9, 9), ("static alpha=1.1", 6, 0), ("static alpha=1.2", 6, 0), ("exact", 6, 0), ("null", 6, 0),
    ]  # fmt: skip
    assert rows["vanilla"].operations == pytest.approx((20 * work.forward + work.decode) / 1e12)
    more = rows["static alpha=1.1"].operations - rows["vanilla"].operations
    assert more == pytest.approx(20 * 4 * work.attention / 1e12)
    assert rows["null"].operations == rows["static alpha=1.1"].operations
    assert rows["exact"].operations - rows["static alpha=1.1"].operations == pytest.approx(20 * work.by_heads / 1e12)
    diagnosed = 9 * (20 * 1.3 * work.forward + work.decode) / 1e12
    assert rows["vanilla"].hours == pytest.approx(diagnosed / TERAFLOPS / 3600)
    assert found.scoring == pytest.approx(33 * 2 * SCORING / 3600)
    assert found.hours == pytest.approx(sum(row.hours for row in found.rows) + found.scoring)
    assert found.disk["images"] == 33 * 1024 * 1024 * 1.5
    large = {row.setting: row for row in forecast(study({"vanilla": {}, "large": {"size": 2048}}), sd3, 1).rows}
    assert large["large"].operations > 4 * large["vanilla"].operations
    assert "10 steps × 2 passes × 8.9 TFLOP + 10.5 for decoding = 189 TFLOP" in found.told[0]


def test_measured_seconds_take_the_place_of_the_assumed_speed(sd3):
    plain = forecast(study(), sd3, 1, seconds=6.0)
    assert plain.rows[0].hours == pytest.approx(6 * 9 / 3600)
    assert "takes 6 s, as given" in plain.told[0]
    doubled = forecast(study({"vanilla": {}, "long": {"steps": 20}, "alone": {"guidance": 1}}), None, 1, seconds=6.0)
    hours = {row.setting: row.hours for row in doubled.rows}
    assert hours["long"] == pytest.approx(2 * hours["vanilla"])
    assert hours["alone"] == pytest.approx(hours["vanilla"] / 2)
    with pytest.raises(
        ValueError, match=r"the operations of .* cannot be counted here; measure .* --seconds-per-image"
    ):
        forecast(study(), None, 1)


def test_what_is_there_is_taken_off(folder, tmp_path, capfd):
    where = tmp_path / "run"
    store, bones = Store(where), skeleton(find_model(str(folder)))
    written: dict[str, Any] = {
        "model": str(folder), "chunk": 2, "prompts": {"mine": ["a red three", "a blue seven"]},
        "seeds": {"eval": "0-1"}, "settings": {"vanilla": {}}, "metrics": ["ensemble/all-right"],
    }  # fmt: skip
    larger = written | {"settings": {"vanilla": {}, "static": {"alpha": 2}}}

    def left(written):
        found = forecast(Study.of(written), bones, 1, store=store)
        return found, (found.planned, found.there, *((row.images, row.diagnosed) for row in found.rows))

    whole, counts = left(larger)
    assert counts == (8, 0, (4, 0), (4, 0))
    assert whole == forecast(Study.of(larger), bones, 1)
    run_study(Study.of(written), where, Options(workers=1))
    half, counts = left(larger)
    assert counts == (8, 4, (0, 0), (4, 0))
    assert half.rows[1] == whole.rows[1]
    assert half.hours == pytest.approx(whole.rows[1].hours + whole.scoring / 2)
    assert half.bytes == pytest.approx(whole.bytes / 2)
    done = left(written)[0]
    assert (done.planned, done.there, done.images, done.hours, done.bytes) == (4, 4, 0, 0, 0)

    # Images that are there and are yet to be diagnosed take time and no room.
    measured, counts = left(larger | {"runs": [{"settings": "vanilla", "diagnose": True}, {"settings": "static"}]})
    assert counts == (8, 4, (4, 4), (4, 0))
    assert measured.disk["images"] == half.disk["images"]
    assert measured.rows[0].hours > whole.rows[0].hours
    assert any(line.startswith("4 of the images that are there are made once more") for line in measured.told)

    # What was never looked at is looked at; what could not be made is not.
    next(where.glob("scores/*/*/*.parquet")).unlink()
    assert left(larger)[0].scoring == pytest.approx((4 + 2) * SCORING / 3600)
    run_study(Study.of(larger), where, Options(workers=1))
    assert left(larger)[1] == (8, 8, (0, 0), (0, 0))
    table = next(where.glob("samples/*/*.parquet"))
    store.keep_text("{}", "failures", f"{store.read('samples', table.parent.name, table.stem)['sample_id'][0]}.json")
    table.unlink()
    broken, counts = left(larger)
    assert sorted(counts[2:]) == [(0, 0), (1, 0)]
    assert (counts[:2], broken.told[-2].split(";")[0]) == ((8, 6), "images that could not be made: 1")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(larger | {"seeds": {"eval": "0-2"}}))
    assert run(["study", "run", str(tmp_path / "study.yaml"), "--out", str(where), "--dry-run"]) == 0
    said = capfd.readouterr().out
    assert "study: 12 images of 2 settings, of which 6 are there; prompts: 2 mine" in said


# What is missing


def test_what_is_missing_is_said_with_where_to_get_it(tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    files, why = find_quietly("stabilityai/stable-diffusion-3-medium-diffusers")
    assert files is None
    assert "huggingface.co/stabilityai/stable-diffusion-3-medium-diffusers after accepting its licence" in why
    some = Study.of({"model": SD3, "prompts": {"x": {"coco": {"count": 2}}}, "settings": {"vanilla": {}},
                     "metrics": ["hps"]}, stand_in=True)  # fmt: skip
    found = missing(some, why, tmp_path / "not" / "there", 1e18)
    assert [line.split()[0] for line in found] == ["COCO's", SD3, "hps:", str(tmp_path / "not" / "there")]
    assert "annotations_trainval2014.zip" in found[0]
    assert "hf download xswu/HPSv2" in found[2]
    assert "the study needs about 1000000000.0 GB" in found[3]
    assert not no_network
    with pytest.raises(ValueError, match="there is no model 'ensemble-sdxll'; did you mean ensemble-sdxl"):
        find_quietly("ensemble-sdxll")


def test_a_download_that_was_not_finished_is_told_from_a_model(folder, tmp_path):
    assert find_quietly(str(folder))[1] == ""
    half = shutil.copytree(folder, tmp_path / "half")
    (half / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert "has no weights for unet on this disk" in find_quietly(str(half))[1]


# Tables


def test_tables_are_asked_themselves_what_they_lack():
    some = Study.read(STUDIES / "quick.yaml")
    found = {each.name: each.missing for each in rehearse(some)}
    assert [name for name in ("table-1", "table-2", "table-3a", "table-8", "field") if found[name]] == []
    assert "settings of the family adaptive" in found["table-6"]
    assert "at least 10 prompts" in found["table-3b"]
    few = {each.name: each.missing for each in rehearse(some, ["down", "up"])}
    assert "in the stages down, mid and up" in few["table-1"]
    blind = Study.of({"model": "m", "prompts": {"x": ["a"]}, "settings": {"vanilla": {}}})
    assert {each.missing for each in rehearse(blind)} == {
        "metrics: without any, images are made and measured, and not judged"
    }


def test_a_dry_run_says_it_all_and_leaves_nothing_behind(tmp_path, monkeypatch, capfd, no_network):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("SYMSKEW_CAPTIONS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert run(["study", "run", str(STUDIES / "sd3-coco.yaml"), "--dry-run"]) == 1
    said = capfd.readouterr().out
    for part in (
        *("sd3-coco: 43,000 images", "1,000 coco-1k, 10,000 coco-10k"),
        *("static alpha=0.97 beta=4", "TFLOP, counted", "11 can be met by StableDiffusion3"),
        *("table-7", "no table-8: this needs features of real images by inception-tf1"),
        *("missing: COCO's captions", f"missing: {SD3} is not on this disk"),
    ):
        assert part in said, part
    assert list(tmp_path.iterdir()) == []
    assert not no_network
    written = yaml.safe_load((STUDIES / "sd3-coco.yaml").read_text())
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(written | {"model": "nobody/nothing"}))
    assert run(["study", "run", str(tmp_path / "other.yaml"), "--dry-run"]) == 1
    said = capfd.readouterr().out
    assert "settings: not checked, since the parts of nobody/nothing are not known" in said
    assert "missing: the operations of nobody/nothing cannot be counted here; measure one vanilla image" in said
    assert "get it by: hf download nobody/nothing" in said
    written["settings"]["wrong"] = {"alpha": 2, "layers": "upper"}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(written))
    assert run(["study", "run", str(tmp_path / "wrong.yaml"), "--dry-run"]) == 2
    assert "settings: wrong: symskew: layers='upper' picks none of the 24" in capfd.readouterr().err.replace("\n", " ")
    assert run(["study", "run", str(tmp_path / "wrong.yaml"), "--seconds-per-image", "3"]) == 2
    assert "--seconds-per-image is for --dry-run" in capfd.readouterr().err.replace("\n", " ")
