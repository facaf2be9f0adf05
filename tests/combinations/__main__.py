"""`python tests/combinations` writes the table into docs/combinations.md."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from combinations.page import PAGE, lines
from symskew.files import write_section

write_section(PAGE, "combinations", lines())
