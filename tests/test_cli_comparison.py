"""The comparison picture: sized by what it shows, readable, and honest about what it leaves out."""

from pathlib import Path

import pytest
from PIL import Image, ImageChops

from symskew.cli.comparison import MOST_PROMPTS, MOST_SEEDS, RIGHT, WRONG, _fit, draw_comparison
from symskew.cli.job import Done
from symskew.cli.judging import Opinion
from symskew.generation import Result

GOOD, BAD, UNKNOWN = Opinion("red three", True), Opinion("blue one", False, ("no red three",)), Opinion("red one", None)


def done(prompt="a red three", seed=0, opinion: Opinion | None = GOOD, controlled=False, size=(64, 64)):
    settings = {"model": "ensemble-sdxl", "prompt": prompt, "seed": seed, "steps": 30, "guidance": 3.0}
    if controlled:
        settings["circulation"] = {"alpha": 2.0, "beta": 3.0}
    return Done(Result(Image.new("RGB", size, "#000"), settings, 1.0, {}), Path("x.png"), opinion)


def pair(vanilla: Opinion | None = GOOD, controlled: Opinion | None = BAD, **what):
    return done(opinion=vanilla, **what), done(opinion=controlled, controlled=True, **what)


def has(picture, colour):
    target = Image.new("RGB", picture.size, colour)
    low, _ = ImageChops.difference(picture, target).convert("L").getextrema()
    return low == 0


def test_verdicts_have_their_colours():
    assert has(draw_comparison([pair(GOOD, GOOD)]), RIGHT)
    assert not has(draw_comparison([pair(GOOD, GOOD)]), WRONG)
    assert has(draw_comparison([pair(GOOD, BAD)]), WRONG)
    for opinion in (None, UNKNOWN):
        picture = draw_comparison([pair(opinion, opinion)])
        assert not has(picture, RIGHT)
        assert not has(picture, WRONG)


def test_the_picture_grows_with_prompts_and_seeds_up_to_a_limit():
    one = draw_comparison([pair()])
    assert draw_comparison([pair(seed=0), pair(seed=1)]).width > one.width
    assert draw_comparison([pair(prompt="x"), pair(prompt="y")]).height > one.height
    many = [pair(prompt=f"prompt {n}", seed=s) for n in range(MOST_PROMPTS + 5) for s in range(MOST_SEEDS + 5)]
    few = [pair(prompt=f"prompt {n}", seed=s) for n in range(MOST_PROMPTS) for s in range(MOST_SEEDS)]
    assert draw_comparison(many).size == draw_comparison(few).size


@pytest.mark.parametrize("size", [(64, 64), (1024, 1024), (96, 48), (333, 1000)])
def test_images_of_all_sizes_are_brought_to_the_same_length(size):
    assert draw_comparison([pair(size=size)]).width <= draw_comparison([pair()]).width


def test_what_does_not_fit_is_counted():
    assert _fit(["no red three"], 200) == ["no red three"]
    assert _fit(["one", "two", "three"], 200) == ["one, two, three"]
    lines = _fit(["magenta nine unreadable", "yellow two unreadable", "extra red", "no cyan one"], 170)
    assert len(lines) == 2
    assert lines[1].endswith(" +2")
