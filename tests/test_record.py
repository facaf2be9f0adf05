"""The record as a table, as files, as maps; and what becomes of it when something goes wrong."""

import copy
import errno
import json
import math
import threading

import pandas
import pyarrow.dataset
import pyarrow.parquet
import pytest
import torch

import tiny
from symskew import Circulation, SilentProbeError, control, diagnose
from symskew.grid import locate
from symskew.layers import find_layers
from symskew.record import COLUMNS


@pytest.fixture(scope="module")
def recorded():
    pipe = tiny.pipeline_sdxl()
    with diagnose(pipe, maps=True) as record:
        tiny.generate(pipe, batch=2)
    return record


def test_the_table_says_what_its_columns_mean(recorded):
    frame = recorded.to_pandas()
    assert len(frame) == len(recorded) == len(recorded.layers) * 3 * 4
    assert set(frame.columns) <= set(COLUMNS)
    assert list(frame.attrs["columns"]) == list(frame.columns)
    assert frame.attrs["features"] == 64
    assert "centred" in frame.attrs["conventions"]
    assert set(frame.states) == {"input"}


@pytest.mark.parametrize("by", [["stage"], ["branch", "step"], ["layer"], ["generation", "sample"]])
def test_means_are_those_of_pandas(recorded, by):
    frame = recorded.to_pandas()
    for measure in ("energy", "instability", "alignment", "symmetry", "skew_ratio"):
        mine = recorded.mean(measure, by=by, step=range(1, 3))
        theirs = frame[frame.step > 0].groupby(by, observed=True)[measure].mean()
        assert len(mine) == len(theirs)
        for key, value in mine.items():
            assert math.isclose(value, theirs[key], rel_tol=1e-5), (measure, key)
    assert math.isclose(recorded.mean("energy"), frame.energy.mean(), rel_tol=1e-5)


def test_stages_come_in_order(recorded):
    assert list(recorded.mean("alignment", by=["stage"])) == ["down", "mid", "up"]
    assert recorded.scores("instability", branch="conditional").shape == (2,)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda record: record.mean("beauty"), "no column 'beauty'; there are generation, step"),
        (lambda record: record.mean("layer"), "'layer' is a column of words"),
        (lambda record: record.mean("energy", stage="top"), "no row of the record has stage='top'"),
        (lambda record: record.mean("energy", by=["stages"]), "no column 'stages'"),
        (lambda record: record.map("beauty"), "'beauty' is no map; there are agreement, conflict"),
    ],
)
def test_unknown_names_are_refused(recorded, read, message):
    with pytest.raises(ValueError, match=message):
        read(recorded)


def test_parquet_keeps_numbers_words_and_metadata(recorded, tmp_path):
    path = recorded.to_parquet(tmp_path / "deep" / "record.parquet")
    frame = pandas.read_parquet(path)
    pandas.testing.assert_frame_equal(
        frame.astype({"layer": str}),
        recorded.to_pandas().astype({"layer": str}),
        check_categorical=False,
        check_dtype=False,
    )
    metadata = json.loads(pyarrow.parquet.read_schema(path).metadata[b"symskew"])
    assert metadata["columns"]["alignment"] == COLUMNS["alignment"]
    assert [entry.name for entry in path.parent.iterdir()] == ["record.parquet"]


def test_long_runs_append_file_by_file(tmp_path):
    pipe = tiny.pipeline_sdxl()
    with diagnose(pipe) as whole:
        for seed in range(3):
            tiny.generate(pipe, seed=seed)
    with diagnose(pipe) as record:
        for seed in range(3):
            tiny.generate(pipe, seed=seed)
            record.append(tmp_path)
            with pytest.raises(ValueError, match="the record is empty"):
                record.append(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"part-{number:06d}.parquet" for number in range(3)]
    frame = pyarrow.dataset.dataset(tmp_path).to_table().to_pandas()
    assert frame.energy.tolist() == whole.to_pandas().energy.tolist()
    assert frame.generation.tolist() == whole.to_pandas().generation.tolist()


def test_appending_half_way_through_a_generation(tmp_path):
    pipe = tiny.pipeline_sdxl()

    def half_way(pipe, step, time, given):
        if step == 0:
            record.append(tmp_path)
        return given

    with diagnose(pipe) as record:
        tiny.generate(pipe, callback_on_step_end=half_way)
        record.append(tmp_path)
    frame = pyarrow.dataset.dataset(tmp_path).to_table().to_pandas()
    assert sorted(set(zip(frame.generation, frame.step, strict=True))) == [(0, 0), (0, 1), (0, 2)]


def test_several_append_to_one_folder_at_once(recorded, tmp_path):
    records = [copy.copy(recorded) for _ in range(8)]
    for record in records:
        record.generations = [copy.copy(generation) for generation in recorded.generations]
    threads = [threading.Thread(target=record.append, args=(tmp_path,)) for record in records]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {len(pandas.read_parquet(path)) for path in tmp_path.iterdir()} == {len(recorded)}
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"part-{number:06d}.parquet" for number in range(8)]


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    model = tiny.pixart()
    with diagnose(model) as record:
        tiny.run(model)
    rows = len(record)
    write = pyarrow.parquet.write_table

    def fails(table, path, **how):
        write(table.slice(0, 1), path)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pyarrow.parquet, "write_table", fails)
    for attempt in (lambda: record.append(tmp_path), lambda: record.to_parquet(tmp_path / "record.parquet")):
        with pytest.raises(OSError, match="No space left"):
            attempt()
        assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert len(record) == rows
    assert len(pandas.read_parquet(record.append(tmp_path))) == rows


def test_ctrl_c_half_way_keeps_what_was_recorded():
    pipe = tiny.pipeline_sdxl()

    def stop(pipe, step, time, given):
        if step == 1:
            raise KeyboardInterrupt
        return given

    with pytest.raises(KeyboardInterrupt), diagnose(pipe) as record:
        tiny.generate(pipe, callback_on_step_end=stop)
    assert set(record.to_pandas().step) == {0, 1}
    assert torch.equal(tiny.generate(pipe), tiny.generate(tiny.pipeline_sdxl()))


def test_values_that_are_not_finite_are_named_and_kept():
    pipe = tiny.pipeline_sdxl()
    layer = find_layers(pipe.unet)[3]
    layer.module.get_submodule("to_q").weight.data[0] = float("nan")  # pyright: ignore
    message = rf"symskew: energy, .*symmetry, skew_ratio of {layer.name} at step 0 \(timestep"
    with pytest.raises(FloatingPointError, match=message), diagnose(pipe) as record:
        tiny.generate(pipe)
    assert set(record.to_pandas().step) == {0, 1, 2}


def test_a_record_is_read_after_something_was_recorded():
    model = tiny.pixart()
    with diagnose(model) as record:
        with pytest.raises(ValueError, match="the record is empty: nothing was generated within its `with"):
            record.mean("energy")
        tiny.run(model)
        assert len(record) > 0  # also while it is open
    with pytest.raises(SilentProbeError, match="ended without having seen anything"), diagnose(model):
        pass
    with pytest.raises(ValueError, match="the record has no maps"):
        record.map()


def test_layers_out_of_reach_are_an_error():
    from diffusers.models.attention_processor import AttnProcessor

    model = tiny.pixart()
    layer = find_layers(model)[1].module
    layer.set_processor(AttnProcessor())  # pyright: ignore[reportCallIssue]
    message = "1 of the 3 chosen layers .* nothing would have been measured there.*it multiplies matrices itself"
    with pytest.raises(SilentProbeError, match=f"(?s){message}"), diagnose(model):
        tiny.run(model)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"features": 0}, "features is a number of at least 1"),
        ({"states": "keys"}, "states must be 'input', 'value' or None"),
        ({"every": 0}, "every is a number of steps"),
        ({"layers": "top"}, "layers='top' picks none"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_attached(how, message):
    model = tiny.pixart()
    with pytest.raises(ValueError, match=message), diagnose(model, **how):
        pass
    assert not any(hasattr(module, "_diffusers_hook") for module in model.modules())


def test_input_features_that_cannot_be_known():
    attention = tiny.vae().encoder.mid_block.attentions[0]
    model, x = torch.nn.Sequential(attention), torch.randn(1, attention.to_q.in_features, 4, 4)
    with pytest.raises(ValueError, match="what the projections of 0 saw"), diagnose(model, states="input"):
        model(x)
    with torch.no_grad(), diagnose(model) as record:
        model(x)
    assert record.mean("energy", by=["states"]).keys() == {"value"}


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 16), (16, 40)])
def test_maps_fold_to_the_image_at_any_aspect_ratio(height, width):
    pipe = tiny.pipeline_sdxl()
    with diagnose(pipe, maps=True) as record:
        tiny.generate(pipe, height=height, width=width)
    finest = record.map("conflict")
    assert finest.shape == (height // 2, width // 2)
    assert 0 <= finest.min() <= finest.max() <= 1
    mid = record.map(stage="mid")
    assert mid.shape == (math.ceil(height / 4), math.ceil(width / 4))
    assert record.map(size=(height, width)).shape == (height, width)


@pytest.mark.parametrize("build", [tiny.pipeline_sd3, tiny.pipeline_flux], ids=lambda build: build.__name__)
def test_maps_hold_the_image_tokens_alone(build):
    """Whatever the text: its tokens are measured with the others, and are not in the map."""
    pipe = build()
    with diagnose(pipe, maps=True) as record:
        tiny.generate(pipe, height=16, width=32)
    assert record.map().shape == (4, 8)


def test_image_tokens_are_found_on_either_side_of_the_text():
    first, second = find_layers(tiny.sd3())[0], find_layers(tiny.flux())[0]
    assert locate(first, 21, (16, 5), [(4, 4)]) == (slice(0, 16), (4, 4))
    assert locate(second, 21, (16, 5), [(4, 4)]) == (slice(5, 21), (4, 4))
    assert locate(second, 21, (21, 0), [(4, 4)]) == (slice(5, 21), (4, 4))
    with pytest.raises(ValueError, match=r"where the tokens of .* are in the image cannot be known: 15 image tokens"):
        locate(second, 15, (15, 0), [(4, 4)])


def test_maps_show_where(recorded):
    """Each sample has a map of its own, and a map of several is their mean."""
    name = recorded.layers[-1].name
    one = {"layer": name, "step": 0, "branch": "conditional"}
    both = torch.stack([recorded.map(sample=sample, **one) for sample in range(2)])
    assert torch.allclose(both.mean(0), recorded.map(**one), atol=1e-5)
    assert not torch.allclose(both[0], both[1])


def test_maps_under_control_are_of_the_controlled_states():
    pipe = tiny.pipeline_sdxl()
    with control(pipe, Circulation(3.0, 3)), diagnose(pipe, maps=True) as record:
        tiny.generate(pipe)
    assert torch.equal(record.map(), record.map(retrieval="controlled"))
    assert not torch.allclose(record.map(), record.map(retrieval="vanilla"))


def test_video_keeps_its_frames():
    model = tiny.seeded(
        lambda: tiny.diffusers.WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
            text_dim=16, freq_dim=16, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
        )
    )  # fmt: skip
    with torch.no_grad(), diagnose(model, maps=True) as record:
        model(torch.randn(1, 4, 3, 8, 12), torch.tensor([500.0]), torch.randn(1, 5, 16))
    assert record.map().shape == (3, 4, 6)
