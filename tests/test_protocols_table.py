import dataclasses

import pytest

from symskew.protocols import Column, ResultTable
from symskew.statistics import Estimate


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (1.0, 3.0, "2.0 (1.0 to 3.0)"),
        (1.98, 2.02, "2.000 (1.980 to 2.020)"),
        (-98, 102, "2 (-98 to 102)"),
        (2.0, 2.0, "2.00 (2.00 to 2.00)"),
    ],
)
def test_an_estimate_shows_as_many_decimals_as_its_interval_supports(low, high, text):
    assert Column("x").text(Estimate(2.0, low, high, 10, 10)) == text


def test_stars_signs_and_formats():
    sure = Estimate(0.25, 0.2, 0.3, 10, 10, p=0.01)
    assert Column("x", ".1%", sign=True, mark=True).text(sure) == "+25.0% (+20.0% to +30.0%)*"
    assert Column("x", ".1f", mark=True).text(dataclasses.replace(sure, p=0.05)) == "0.2 (0.2 to 0.3)"
    assert Column("x", ".1f", mark=True).text(dataclasses.replace(sure, p=None)) == "0.2 (0.2 to 0.3)"
    assert Column("p", ".3f").text(0.0002) == "<0.001"
    assert Column("p", ".3f").text(0.0) == "0.000"
    assert Column("d", ".3f", sign=True).text(0.0002) == "+0.000"
    assert Column("n").text(1234567) == "1234567"
    assert Column("x").text(float("nan")) == Column("x").text(None) == ""
    assert Column("x").text(-0.12345) == "-0.123"
    assert Column("x").text(Estimate(0.0, 0.0, 0.0, 2, 2)) == "0.000 (0.000 to 0.000)"


def test_rows_must_fit_the_columns():
    with pytest.raises(ValueError, match="t has 2 columns and a row of 1"):
        ResultTable("t", "", (Column("a"), Column("b")), ((1,),), "", "")


def test_rows_are_found_by_what_is_in_them():
    table = ResultTable("t", "", (Column("chosen by"), Column("b")), (("x", 1), ("y", 2), ("x", 3)), "", "")
    assert [row["b"] for row in table.records(chosen_by="x")] == [1, 3]
    assert len(list(table.records())) == 3
    with pytest.raises(ValueError, match="t has no column 'colour'; it has chosen by, b"):
        list(table.records(colour="red"))
