"""Charts as SVG text that goes into a page as it is: fonts and the colour of ink are the page's own.

Figures are made without pyplot, here and in `health`, so that no window system and no global state is touched.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

__all__ = ["Line", "bar_chart", "line_chart"]

INK = "#010203"  # a colour nobody draws with; it becomes currentColor, the colour of the page's text
SIZE = (5.2, 2.9)  # inches
STYLE: Any = {  # matplotlib names every key in a type of its own
    "font.size": 9.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "vqtok",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.8,
}
COLOURS = ("#3b7dd8", "#e0702c", "#2a9d74")  # read on white and on near-black


@dataclass(frozen=True)
class Line:
    """One line of a chart; an entry of `y` that is not finite leaves a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def line_chart(
    name: str,
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
        name: of the chart; letters and hyphens, it starts the identifiers inside the SVG.
        lines: at most as many as there are COLOURS. One with few points shows them.
        x_label, y_label: with units.
        log: logarithmic y axis.
        floor: where the y axis starts; as the lines have it where not given.
        levels: names and heights of dashed lines across, to compare with.

    Returns:
        An `<svg>` element.
    """
    with matplotlib.rc_context(STYLE):
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
        return svg(figure, name)


def bar_chart(
    name: str, values: npt.NDArray[np.float64], *, x_label: str, y_label: str, levels: Mapping[str, float] | None = None
) -> str:
    """One bar a value, side by side; arguments as in `line_chart`."""
    with matplotlib.rc_context(STYLE):
        figure, axes = blank()
        axes.stairs(values, fill=True, color=COLOURS[0])
        draw_levels(axes, levels or {})
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.margins(x=0)
        axes.set_ylim(bottom=0)
        return svg(figure, name)


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


def svg(figure: Figure, name: str) -> str:
    """The figure as an element that fits the width it is given, with identifiers of its own."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # a style would hold for the whole page
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    head = re.search(r'viewBox="([^"]+)"', text)
    assert head is not None
    text = re.sub(r"<svg\b.*?>", f'<svg class="chart" role="img" viewBox="{head[1]}">', text, count=1, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'xlink:href="#', f'href="#{name}-', text)
    text = re.sub(r'font-family: [^;"]+', "font-family: inherit", text)
    return text.replace(INK, "currentColor").strip()
