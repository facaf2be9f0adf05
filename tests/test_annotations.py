"""Shapes in signatures are true: the examples of the maths run with every annotation checked.

In a process of its own, since a checked signature answers bad input before the functions' own, better, messages can.
"""

import subprocess
import sys

CHECKED = """
import doctest, importlib, sys, types
import beartype, jaxtyping, torch
strict = types.ModuleType("strict")
strict.check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))  # an int is a float
sys.modules["strict"] = strict
names = ["symskew.algebra", "symskew.circulation", "symskew.circulate", "symskew.stability"]
with jaxtyping.install_import_hook(names, "strict.check"):
    modules = [importlib.import_module(name) for name in names]
options = doctest.NORMALIZE_WHITESPACE
runs = [doctest.testmod(module, extraglobs={"torch": torch}, optionflags=options) for module in modules]
assert all(run.attempted >= 2 and not run.failed for run in runs), runs
try:
    modules[0].symmetry_index(torch.ones(3), torch.ones(3))
except jaxtyping.TypeCheckError:
    print("checked")
"""


def test_examples_run_with_shapes_checked():
    done = subprocess.run([sys.executable, "-c", CHECKED], capture_output=True, text=True)
    assert done.stdout.strip().endswith("checked"), done.stdout + done.stderr
