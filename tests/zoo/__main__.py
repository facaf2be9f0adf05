"""`python tests/zoo`: hold symskew to the truth on every model class of diffusers, and write docs/models.md."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from symskew.files import write_section
from zoo.table import PAGE, cases, line, render

torch.set_num_threads(1)
warnings.simplefilter("ignore")
lines, failed = [], []
chosen = [case for case in cases() if not sys.argv[1:] or case.split("`")[1] in sys.argv[1:]]
for case in chosen:
    try:
        lines.append(line(case))
        print(lines[-1].text, flush=True)
    except Exception as error:
        failed.append(case)
        print(f"{case}: {error}", flush=True)
if failed:
    sys.exit(f"{len(failed)} of {len(chosen)} failed, and nothing was written: {', '.join(failed)}")
if not sys.argv[1:]:
    write_section(PAGE, "support", render(lines).splitlines())
