"""Every model class of diffusers: control and diagnosis hold on a tiny one, or it is refused; the docs say the same."""

import pytest

from symskew import Circulation
from symskew.layers import find_layers
from zoo.reference import algorithm_2
from zoo.table import ENTRIES, cases, documented, line, versions

# What models in float64, and without an accelerator, are warned of by diffusers and torch.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight"),
    pytest.mark.filterwarnings("ignore:Initializing zero-element tensors"),
    pytest.mark.filterwarnings("ignore:In CPU autocast"),
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile"),
]


@pytest.mark.parametrize("case", cases())
def test_class(case):
    found = line(case)
    made, lines = documented()
    if made == versions():  # another version may have other layers
        assert lines.get(case) == found.text, "docs/models.md is out of date: `make support`"


def test_the_page_has_no_class_that_is_gone():
    made, lines = documented()
    assert made != versions() or lines.keys() == set(cases())


FLUX = "`FluxTransformer2DModel`"


def test_a_class_that_nobody_has_entered_is_named(monkeypatch):
    monkeypatch.delitem(ENTRIES, "FluxTransformer2DModel")
    assert FLUX in cases()
    with pytest.raises(AssertionError, match=r"has a class FluxTransformer2DModel .*that is not in the table"):
        line(FLUX)


def test_a_layer_that_is_not_found_is_found_out(monkeypatch):
    monkeypatch.setattr("zoo.verify.find_layers", lambda model: find_layers(model)[:-1])
    with pytest.raises(AssertionError, match=r"single_transformer_blocks\.1\.attn is in no layer that was found"):
        line(FLUX)


def test_control_that_is_a_little_off_is_found_out(monkeypatch):
    monkeypatch.setattr("zoo.verify.algorithm_2", lambda names, _: algorithm_2(names, Circulation(1.4, 3.01)))
    with pytest.raises(AssertionError, match="off the dense reference"):
        line(FLUX)


def test_text_taken_for_the_image_is_found_out(monkeypatch):
    monkeypatch.setattr("symskew.grid.TEXT_FIRST", ())
    monkeypatch.setattr("symskew.grid.IMAGE_FIRST", ("Flux",))
    with pytest.raises(AssertionError, match="not close"):
        line(FLUX)
