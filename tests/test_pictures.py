"""Pictures of a diagnosis: of the right size, with colours that mean numbers, and clear about what cannot be shown."""

import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from symskew import diagnose, pictures


@pytest.fixture(scope="module")
def recorded():
    pipe = tiny.pipeline_sdxl()
    with diagnose(pipe, maps=True) as record:
        tiny.generate(pipe, batch=2)
    return record


def picture(width=48, height=32):
    """A noisy image: outlines everywhere."""
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return Image.fromarray(noise)


PLAIN = Image.new("RGB", (48, 32), "#888888")


@pytest.mark.parametrize("size", [(64, 64), (48, 96), (100, 30), (7, 5)])
@pytest.mark.parametrize("measure", ["conflict", "agreement"])
def test_an_overlay_has_the_size_of_its_image(size, measure):
    laid = pictures.overlay(picture(*size), torch.rand(4, 6), measure)
    assert (laid.size, laid.mode) == (size, "RGB")
    assert pictures.overlay(picture(*size).convert("RGBA"), torch.rand(4, 6), measure, bar=True).width > size[0]


def test_colours_are_the_numbers_of_the_map_where_the_image_is_even():
    half = torch.tensor([[0.0, 0.5]]).repeat(2, 1)
    laid = np.asarray(pictures.overlay(PLAIN, half)).astype(int)
    assert laid[0, 0].sum() < 20  # no conflict is black
    assert laid[0, -1, :2].min() > 200  # chance is pale yellow
    assert laid[0, -1, 2] < laid[0, -1, 0]
    # The same value has the same colour in every map, unless it goes beyond chance or another scale is asked for.
    other = np.asarray(pictures.overlay(PLAIN, torch.tensor([[0.1, 0.0], [0.5, 0.3]]))).astype(int)
    assert np.abs(other[-1, 0] - laid[0, -1]).max() <= 2
    scaled = pictures.overlay(PLAIN, half, scale=(0, 1))
    assert np.asarray(scaled)[0, -1].sum() < laid[0, -1].sum()
    assert pictures.overlay(PLAIN, half, scale=(0, 0.5)).tobytes() == pictures.overlay(PLAIN, half).tobytes()


def test_outlines_are_white_and_only_where_the_image_changes():
    image = PLAIN.copy()
    image.paste("#000000", (24, 0, 48, 32))
    laid = np.asarray(pictures.overlay(image, torch.zeros(2, 2)))
    assert laid[:, 23:25].min() > 180
    assert laid[:, :20].max() < 10


@pytest.mark.parametrize("value", [0.0, 0.25, 1.0, -3.0])
@pytest.mark.parametrize("measure", ["conflict", "agreement"])
def test_a_constant_map_has_one_colour(value, measure):
    laid = np.asarray(pictures.overlay(PLAIN, torch.full((4, 4), value), measure)).astype(int)
    assert (laid.max((0, 1)) - laid.min((0, 1))).max() <= 2  # interpolated, so to the last bit of a number
    pictures.overlay(PLAIN, torch.full((4, 4), value), measure, bar=True)


@pytest.mark.parametrize(
    ("map", "options", "message"),
    [
        (
            torch.zeros(3, 4, 4),
            {},
            r"is \(height, width\), got \(3, 4, 4\); it is of a video: lay a frame of it, map\[0",
        ),
        (torch.zeros(4), {}, r"is \(height, width\), got \(4,\)\."),
        (torch.full((2, 2), math.nan), {}, "a map of conflict with values that are not finite"),
        (torch.zeros(2, 2), {"measure": "energy"}, "'energy' is no map; there are conflict, agreement"),
        (torch.zeros(2, 2), {"scale": (1, 1)}, r"scale is the least value and the largest, got \(1, 1\)"),
    ],
)
def test_what_is_no_map_of_an_image_is_refused(map, options, message):
    with pytest.raises(ValueError, match=message):
        pictures.overlay(PLAIN, map, **options)


def test_measures_are_plotted_by_stage_over_the_steps(recorded):
    figure = pictures.plot_measures(recorded, sample=1)
    alignment, instability, energy = figure.axes
    assert [line.get_label() for line in alignment.lines] == ["down", "mid", "up"]
    wanted = recorded.mean("energy", by=["step"], stage="mid", sample=1, branch="conditional")
    (mid,) = [line for line in energy.lines if line.get_label() == "mid"]
    assert np.asarray(mid.get_xdata()).tolist() == list(wanted)
    assert np.asarray(mid.get_ydata()).tolist() == [-value for value in wanted.values()]
    assert instability.get_xlim() == alignment.get_xlim()
    assert len(pictures.plot_measures(recorded, stage="up", step=0).axes[0].lines) == 1


@pytest.mark.parametrize("size", [(16, 16), (64, 24), (24, 64)])
def test_all_in_one_picture(recorded, size):
    figure = pictures.draw(picture(*size), recorded, "5$ and 6$ 价格", "note", sample=0)
    drawn = pictures.render(figure)
    assert drawn.mode == "RGB"
    assert drawn.width > 1000
    extents = [axes.get_window_extent() for axes in figure.axes[:3]]
    for extent in extents:  # image and maps are in line, and as they are
        assert (extent.y0, extent.y1) == pytest.approx((extents[0].y0, extents[0].y1), abs=1)
        assert extent.width / extent.height == pytest.approx(size[0] / size[1], rel=0.02)


def test_the_maps_are_of_the_stage_asked_for(recorded):
    def shown(**where):
        return np.asarray(pictures.draw(PLAIN, recorded, sample=0, **where).axes[1].images[0].get_array())

    assert np.array_equal(shown(), shown(stage="up"))
    assert not np.array_equal(shown(), shown(stage="mid"))


def test_a_film_has_a_frame_for_each_step(recorded, tmp_path):
    frames = pictures.animate(picture(), recorded, sample=0)
    assert len(frames) == 3
    assert len({frame.size for frame in frames}) == 1
    assert len({frame.tobytes() for frame in frames}) == 3
    path = pictures.save_gif(tmp_path / "film.gif", frames, seconds=0.1)
    with Image.open(path) as film:
        assert film.n_frames == 3  # pyright: ignore[reportAttributeAccessIssue]
        assert film.info["duration"] == 100
        assert film.size == frames[0].size
    assert [file.name for file in tmp_path.iterdir()] == ["film.gif"]


def test_records_that_cannot_be_shown_say_why(recorded):
    for show in (pictures.draw, pictures.animate):
        with pytest.raises(ValueError, match="the record is of 2 images; say of which to show it, as in sample=0"):
            show(PLAIN, recorded)
        with pytest.raises(ValueError, match="no row of the record has"):
            show(PLAIN, recorded, sample=7)
    pipe = tiny.pipeline_sd3()
    with diagnose(pipe) as record:
        tiny.generate(pipe)
    with pytest.raises(ValueError, match="the record has no maps"):
        pictures.draw(PLAIN, record)


def test_a_missing_library_is_named_with_its_remedy(recorded, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    for call in (
        lambda: pictures.overlay(PLAIN, torch.zeros(2, 2)),
        lambda: pictures.plot_measures(recorded),
        lambda: pictures.draw(PLAIN, recorded, sample=0),
        lambda: pictures.animate(PLAIN, recorded, sample=0),
    ):
        with pytest.raises(ImportError, match=r'this needs matplotlib: pip install "symskew\[plots\]"'):
            call()


def test_no_state_of_pyplot_is_needed(recorded, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    pictures.plot_measures(recorded)
