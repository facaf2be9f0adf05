"""Statistics of a study: prompts are the units, and seeds within a prompt are never treated as independent.

Pure functions of arrays and prompt labels. NumPy alone is needed to import them; SciPy and statsmodels (the extra
`study`) load where a function uses them. Bad input (no values, numbers that are not finite, arrays that are not
aligned, too few prompts) is a `ValueError` everywhere.
"""

from symskew.statistics.arms import Scores
from symskew.statistics.change import Change, Equivalence, equivalence, paired_change
from symskew.statistics.correlation import rank_correlation
from symskew.statistics.estimate import Estimate
from symskew.statistics.jackknife import jackknife
from symskew.statistics.means import grouped_mean
from symskew.statistics.quantiles import Bin, quantile_curve
from symskew.statistics.reliability import predicted_rebound, reliability, spearman_brown
from symskew.statistics.several import holm, pareto
from symskew.statistics.subset import SubsetChange, subset_change

__all__ = [
    "Bin",
    "Change",
    "Equivalence",
    "Estimate",
    "Scores",
    "SubsetChange",
    "equivalence",
    "grouped_mean",
    "holm",
    "jackknife",
    "paired_change",
    "pareto",
    "predicted_rebound",
    "quantile_curve",
    "rank_correlation",
    "reliability",
    "spearman_brown",
    "subset_change",
]
