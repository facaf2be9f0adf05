"""What stands in the way of set-up is said in one sentence, before anything is downloaded."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = ["bash", "dirname", "df", "awk", "rm", "grep", "tail", "touch"]


@pytest.fixture
def clone(tmp_path):
    """The files that set-up reads, and a PATH with its tools but no Python yet."""
    for name in ("setup.sh", "requirements-dev.txt", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        path = shutil.which(tool)
        assert path is not None, tool
        (tmp_path / "bin" / tool).symlink_to(path)
    return tmp_path


def python(clone: Path, script: str) -> None:
    file = clone / "bin" / "python3"
    file.write_text(f"#!{shutil.which('bash')}\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def set_up(clone: Path, **settings: str) -> str:
    environment = {"PATH": str(clone / "bin"), "HOME": str(clone), **settings}
    done = subprocess.run(["bash", "setup.sh"], cwd=clone, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_python_too_old(clone):
    python(clone, '[ "$1" = --version ] && echo Python 3.8.18 && exit 0; exit 1')
    assert "no Python 3.11, 3.12 or 3.13 found (python3 is Python 3.8.18)" in set_up(clone)
    assert not (clone / ".venv").exists()


def test_no_python_at_all(clone):
    assert "no Python 3.11, 3.12 or 3.13 found" in set_up(clone)


def test_disk_too_small(clone):
    python(clone, f'exec {sys.executable} "$@"')
    assert "about 1000000 GB needed" in set_up(clone, SYMSKEW_SETUP_GB="1000000")
    assert not (clone / ".venv").exists()


def test_no_network(clone):
    python(clone, f'exec {sys.executable} "$@"')
    closed = "http://127.0.0.1:9/simple"
    settings = {
        "PIP_INDEX_URL": closed,
        "PIP_EXTRA_INDEX_URL": closed,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_RETRIES": "0",
    }
    assert "could not be downloaded; check the network" in set_up(clone, SYMSKEW_SETUP_GB="0", **settings)
