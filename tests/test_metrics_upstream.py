"""The oracle: the published packages themselves still say what is frozen, which the adapters are held to."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import scorers
import upstream


def test_frozen_values_are_those_of_the_published_packages():
    if missing := upstream.missing():
        pytest.skip(
            f"{', '.join(missing)} are not here; `make oracle` downloads them (9 MB, not installed) and runs this"
        )
    run = subprocess.run(
        [sys.executable, Path(upstream.__file__), "scores"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    found, frozen = json.loads(run.stdout), json.loads(scorers.FROZEN.read_text())
    assert found["shapes"] == frozen["shapes"]
    assert found["scores"].keys() == frozen["scores"].keys()
    for name, values in frozen["scores"].items():
        assert np.array(found["scores"][name]) == pytest.approx(np.array(values), abs=2e-6), name
