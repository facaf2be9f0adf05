"""Other methods that circulation is compared with, each put on an unmodified pipeline and off again."""

from symskew.baselines.base import Attached, Baseline
from symskew.baselines.freeu import FreeU
from symskew.baselines.guidance import SEG, CirculatedGuidance
from symskew.baselines.null import NullPerturbation
from symskew.baselines.pag import PAG

__all__ = ["PAG", "SEG", "Attached", "Baseline", "CirculatedGuidance", "FreeU", "NullPerturbation"]
