"""What a run left behind, told in words and drawn: summaries of folders, and one HTML page with the whole way on it.

matplotlib is imported in `charts` alone, and only once something is drawn.
"""

from __future__ import annotations

from vqtok.report.folders import Summary, describe

__all__ = ["Summary", "describe"]
