"""A number with its interval, as text; and what importing the statistics costs."""

import subprocess
import sys

from symskew.statistics import Estimate


def test_text():
    found = Estimate(-0.1234, -0.2, 0.05, n=10, samples=40)
    assert found.text() == "-0.123 (-0.200 to 0.050)"
    assert found.text(".1%", sign=True) == "-12.3% (-20.0% to +5.0%)"
    assert found.p is None


def test_the_import_loads_no_heavy_library():
    heavy = ["scipy", "pandas", "statsmodels", "matplotlib"]
    code = f"import sys, symskew.statistics; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
