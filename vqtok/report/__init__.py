"""What a run left behind, told in words and drawn: summaries of folders, and one HTML page with the whole way on it.

matplotlib is imported only once something is drawn.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqtok.report.folders import Summary, describe, describe_codes
    from vqtok.report.health import check_health_folder, draw_health
    from vqtok.report.page import write_report
    from vqtok.report.verdict import Verdict, judge

__all__ = [
    "Summary",
    "Verdict",
    "check_health_folder",
    "describe",
    "describe_codes",
    "draw_health",
    "judge",
    "write_report",
]

_HOMES = {
    "Summary": "folders",
    "Verdict": "verdict",
    "check_health_folder": "health",
    "describe": "folders",
    "describe_codes": "folders",
    "draw_health": "health",
    "judge": "verdict",
    "write_report": "page",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vqtok.report' has no attribute {name!r}")
    return getattr(import_module(f"vqtok.report.{_HOMES[name]}"), name)
