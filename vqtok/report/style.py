"""How charts and drawings look: dark on white, with thin lines and no edges at the top and the right."""

from __future__ import annotations

from typing import Any

__all__ = ["COLOURS", "INK", "STYLE"]

INK = "#1b1f24"  # the page's own in daylight
COLOURS = ("#3b7dd8", "#e0702c", "#2a9d74")
STYLE: dict[Any, Any] = {  # matplotlib names every key in a type of its own
    "savefig.facecolor": "white",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}
