"""Line and bar charts as `<img>` elements: each holds its SVG in a data URI, dark on white as all drawings here are.

Figures are made without pyplot, here and in `health`, so that no window system and no global state is touched.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from vqtok.report.style import COLOURS, INK, STYLE

__all__ = ["Line", "bar_chart", "line_chart"]

SIZE = (5.2, 2.9)  # inches
CHART_STYLE = STYLE | {
    "font.size": 9.5,
    "svg.hashsalt": "vqtok",  # the same figure gives the same bytes
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.8,
}


@dataclass(frozen=True)
class Line:
    """One line of a chart; an entry of `y` that is not finite leaves a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def line_chart(
    alternative: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    log: bool = False,
    floor: float | None = None,
    levels: Mapping[str, float] | None = None,
) -> str:
    """Lines over one axis.

    Args:
        alternative: what the chart shows, for readers who cannot see it.
        lines: at most as many as there are COLOURS. One with few points shows them.
        x_label, y_label: with units.
        log: logarithmic y axis.
        floor: where the y axis starts; as the lines have it where not given.
        levels: names and heights of dashed lines across, to compare with.

    Returns:
        An `<img>` element, as wide as its container.
    """
    with matplotlib.rc_context(CHART_STYLE):
        figure, axes = blank()
        for index, line in enumerate(lines):
            marker = "o" if len(line.x) <= 12 else ""
            axes.plot(line.x, line.y, color=COLOURS[index], label=line.name, marker=marker, markersize=4)
        draw_levels(axes, levels or {})
        if log:
            axes.set_yscale("log")
        if floor is not None:
            axes.set_ylim(bottom=floor)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.margins(x=0.02)
        if len(lines) > 1:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(lines), frameon=False, borderaxespad=0.2)
        return svg_image(figure, alternative)


def bar_chart(
    alternative: str,
    values: npt.NDArray[np.float64],
    *,
    x_label: str,
    y_label: str,
    levels: Mapping[str, float] | None = None,
) -> str:
    """One bar a value, side by side; arguments as in `line_chart`."""
    with matplotlib.rc_context(CHART_STYLE):
        figure, axes = blank()
        axes.stairs(values, fill=True, color=COLOURS[0])
        draw_levels(axes, levels or {})
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.margins(x=0)
        axes.set_ylim(bottom=0)
        return svg_image(figure, alternative)


def blank() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def draw_levels(axes: Axes, levels: Mapping[str, float]) -> None:
    """Dashed lines across, named at the right: the highest above its line, the others below theirs."""
    top = max(levels.values(), default=0.0)
    for name, height in levels.items():
        axes.axhline(height, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.6)
        axes.annotate(
            name,
            (1, height),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3 if height == top else -3),
            textcoords="offset points",
            ha="right",
            va="bottom" if height == top else "top",
            fontsize=8.5,
            alpha=0.8,
        )


def svg_image(figure: Figure, alternative: str) -> str:
    """The figure as an image element that holds it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img class="chart" alt="{escape(alternative)}" src="data:image/svg+xml;base64,{data}">'
