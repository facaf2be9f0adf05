"""Studies: prompts × seeds × settings, generated, diagnosed and scored into a folder that any run goes on with.

>>> from symskew.study import Study, run_study
>>> study = Study.read("study.yaml")  # doctest: +SKIP
>>> run_study(study, "runs/mine")  # doctest: +SKIP
"""

from symskew.study.definition import Study
from symskew.study.run import Ledger, Options, run_study
from symskew.study.store import Store

__all__ = ["Ledger", "Options", "Store", "Study", "run_study"]
