"""What symskew is combined with: every line of docs/combinations.md is true, and every case has its line."""

import pytest

from combinations.cases import CASES
from combinations.truth import check

RUN = [case for case in CASES if case.build is not None]


@pytest.mark.parametrize("case", RUN, ids=lambda case: f"{case.part}: {case.name}")
def test_control_and_diagnosis_are_those_of_the_equations(case):
    live = case.build()
    try:
        check(live, case)
    finally:
        live.done()
