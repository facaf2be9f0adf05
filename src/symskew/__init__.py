"""Look inside and steer the self-attention of generative models: symmetric energy, skew circulation."""

from symskew.algebra import symmetry_index
from symskew.attach import control, disable, enable
from symskew.circulate import Circulation, circulate
from symskew.diagnose import diagnose
from symskew.gate import Gate
from symskew.inspection import Inspection, inspect_weights
from symskew.ramp import Point, Ramp
from symskew.record import Record
from symskew.screening import Screening, screen
from symskew.silence import SilentControlError, SilentProbeError
from symskew.stability import Stability, stability

__version__ = "0.1.0"
__all__ = [
    "Circulation",
    "Gate",
    "Inspection",
    "Point",
    "Ramp",
    "Record",
    "Screening",
    "SilentControlError",
    "SilentProbeError",
    "Stability",
    "circulate",
    "control",
    "diagnose",
    "disable",
    "enable",
    "inspect_weights",
    "screen",
    "stability",
    "symmetry_index",
]
