"""A study as one folder that opens from disk in a browser: what it came to, charts, and every image beside its scores.

Nothing is loaded from a network. Needs the extra `study`.
"""

from symskew.report.write import Claim, write_report

__all__ = ["Claim", "write_report"]
