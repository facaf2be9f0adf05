"""Look inside and steer the self-attention of generative models: symmetric energy, skew circulation."""

from symskew.algebra import symmetry_index
from symskew.circulate import Circulation, circulate
from symskew.stability import Stability, stability

__version__ = "0.1.0"
__all__ = ["Circulation", "Stability", "circulate", "stability", "symmetry_index"]
