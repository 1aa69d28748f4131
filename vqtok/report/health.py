"""The health of a codebook as four drawings and a JSON file: how often its codes are used, how far apart they lie,
where they are used, and what they stand for.

PNG files, dark on white, to be looked at alone, in a page or in a model card.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vqtok.errors import ConfigurationError
from vqtok.evaluation import CodebookHealth
from vqtok.files import check_writable, new_file, write_text
from vqtok.hub import HEALTH, is_health
from vqtok.report.examples import draw_examples
from vqtok.report.style import COLOURS, INK, STYLE
from vqtok.staging import entries_of
from vqtok.text import counted

__all__ = ["DRAWINGS", "HEALTH", "check_health_folder", "draw_health"]

DOTS = 150  # per inch
LARGE = 4096  # codes, from which on ranks are on a logarithmic axis
USED, DEAD = COLOURS[0], COLOURS[1]
DRAWING_STYLE = STYLE | {"font.size": 9, "axes.titlesize": 9.5, "axes.titlelocation": "left", "figure.titlesize": 11}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One of the four.

    Attributes:
        draw: what draws it.
        shows: what it shows, for readers who cannot see it.
        caption: what it shows, and what it looks like where all is well.
    """

    draw: Callable[[CodebookHealth], Figure]
    shows: str
    caption: str


def draw_health(health: CodebookHealth, folder: str | Path) -> list[Path]:
    """Write `frequencies.png`, `distances.png`, `positions.png`, `examples.png` and `health.json` over older ones.

    A link under one of these names is removed, and what it leads to stays.

    Returns:
        The files in this order.

    Raises:
        ConfigurationError: as in `check_health_folder`, or the folder cannot be written.
        DataError: the disk is full.
    """
    check_health_folder(Path(folder))
    files = [Path(folder) / name for name in (*(f"{drawing}.png" for drawing in DRAWINGS), HEALTH)]
    for file in files:
        if file.is_symlink():
            file.unlink()
    *drawn, numbers = files  # the numbers first: they say whose the folder is, should this be cut off
    write_text(numbers, json.dumps({**health.about, **health.numbers()}, indent=2, allow_nan=False) + "\n")
    for file, drawing in zip(drawn, DRAWINGS.values(), strict=True):
        with matplotlib.rc_context(DRAWING_STYLE), new_file(file) as partial:
            figure = drawing.draw(health)
            FigureCanvasAgg(figure)
            figure.savefig(partial, format="png", dpi=DOTS)
    return files


def check_health_folder(folder: Path) -> None:
    """Refuse a folder that `draw_health` would refuse, before any work.

    Raises:
        ConfigurationError: it is a file, holds something and no health.json of ours, or cannot be written.
        DataError: the disk is full.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"{folder} is a file, not a folder: choose another folder with --out")
    check_writable(folder)
    if not folder.exists() or not entries_of(folder):
        return
    if not is_health(folder):
        raise ConfigurationError(
            f"{folder} is not empty and holds no {HEALTH} of vqtok, so no plots are written there: choose another "
            "folder with --out"
        )


def draw_frequencies(health: CodebookHealth) -> Figure:
    """Share of each code, the most used first, with the level of even use and the codes that are never used.

    Of codes that are counted by dimension, the share of each value of each dimension.
    """
    return draw_values(health) if health.counting.by_dimension else draw_codes(health)


def draw_values(health: CodebookHealth) -> Figure:
    """A bar for each dimension, in which each value takes its share."""
    figure, panels = rows_of_panels(health, columns=1, height=2.6)
    for codebook, (axes,) in enumerate(panels):
        counts = health.counts[health.counting.rows_of(codebook)]
        shares = 100 * counts / counts.sum(axis=1, keepdims=True)
        dimensions = np.arange(1, len(counts) + 1)
        tops = shares.cumsum(axis=1)
        for value, (share, top) in enumerate(zip(shares.T, tops.T, strict=True)):
            colour = matplotlib.colormaps["viridis"](value / max(1, shares.shape[1] - 1))
            axes.bar(dimensions, share, bottom=top - share, color=colour, width=0.9)
        use = health.counting.use(torch.from_numpy(counts))
        axes.set_title(panel_title(health, codebook, str(use)))
        axes.set_ylim(0, 100)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}%")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("share of each value")
    panels[-1][0].set_xlabel("dimension of a code, the first one changing fastest")
    note = health.counting.note() or ""
    figure.suptitle(f"How often each value is used, {where(health)}: {note}", x=0.01, ha="left", wrap=True)
    return figure


def draw_codes(health: CodebookHealth) -> Figure:
    """Share of each code, the most used first."""
    figure, panels = rows_of_panels(health, columns=1, height=2.6)
    for codebook, (axes,) in enumerate(panels):
        counts = np.sort(health.counts[codebook])[::-1]
        size, used = len(counts), int((counts > 0).sum())
        even, shares = 100 / size, 100 * counts[:used] / counts.sum()
        floor = min(even, shares.min()) / 3
        axes.stairs(shares, np.arange(used + 1) + 0.5, fill=True, color=USED, baseline=floor)
        axes.axhline(even, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            f"even use: {even:.3g}%",
            (0.995, even),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
        )
        if used < size:
            axes.axvspan(used + 0.5, size + 0.5, color=DEAD, alpha=0.3, linewidth=0)
        axes.set_yscale("log")
        axes.set_ylim(floor, max(shares.max(), even) * 2)
        if size >= LARGE:
            axes.set_xscale("log")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(0.5, size + 0.5)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}%")
        dead = f", {size - used:,} never used (shaded)" if used < size else ""
        axes.set_title(panel_title(health, codebook, f"{used:,} of {size:,} codes in use{dead}"))
        axes.set_ylabel("share of all positions")
    panels[-1][0].set_xlabel("rank of a code, the most used first")
    positions = int(health.counts[0].sum())
    figure.suptitle(f"How often each code is used, {where(health)}: {positions:,} positions", x=0.01, ha="left")
    return figure


def draw_distances(health: CodebookHealth) -> Figure:
    """Histogram of the distance of each code to the nearest other, and the distances of all pairs as a map."""
    figure, panels = rows_of_panels(health, columns=2, height=3.6)
    for codebook, (left, right) in enumerate(panels):
        found = health.distances[codebook]
        size = health.counting.codebook_size
        by_dimension = health.counting.by_dimension
        dead = np.zeros(len(found.codes), dtype=bool) if by_dimension else health.counts[codebook][found.codes] == 0
        top = max(float(found.nearest.max()), 1e-12)
        bins = np.linspace(0, top * 1.02, 41).tolist()
        left.hist(
            [found.nearest[~dead], found.nearest[dead]],
            bins,
            stacked=True,
            color=[USED, DEAD],
            label=["in use", "never used"],
        )
        if dead.any():
            left.legend(frameon=False, loc="upper right")  # to look for the best place can take seconds
        left.set_xlim(0, top * 1.04)
        left.set_ylim(top=1.25 * left.get_ylim()[1])  # room for the legend
        left.yaxis.set_major_locator(MaxNLocator(integer=True))
        sampled = len(found.codes) < size
        left.set_xlabel("distance to the nearest other code" + (" of the sample" if by_dimension else ""))
        left.set_ylabel(f"codes, of a sample of {len(found.codes):,}" if sampled else "codes")
        left.set_title(panel_title(health, codebook, f"nearest code: {found.nearest.mean():.3g} away on average"))

        drawn = right.imshow(found.pairs, cmap="viridis", interpolation="auto")
        sampled = len(found.mapped) < size
        right.set_title(f"all pairs of a sample of {len(found.mapped):,} codes" if sampled else "all pairs")
        right.set_xlabel("codes, similar ones side by side")
        bare(right)
        figure.colorbar(drawn, ax=right, label="distance", fraction=0.05)
    figure.suptitle("How far apart the vectors of the codes are", x=0.01, ha="left")
    return figure


def draw_positions(health: CodebookHealth) -> Figure:
    """Perplexity and number of codes at each position of the grid, or bits and dimensions that vary."""
    figure, panels = rows_of_panels(health, columns=2, height=3.4)
    for codebook, row in enumerate(panels):
        for axes, (name, values) in zip(row, health.maps.items(), strict=True):
            draw_map(axes, values[codebook])
            axes.set_title(panel_title(health, codebook, f"{name} at each position"))
            figure.colorbar(axes.images[0], ax=axes, fraction=0.05)
    blocks = f", squares of {health.block} x {health.block} positions as one" if health.block > 1 else ""
    figure.suptitle(f"Where on the grid codes are used, {where(health)}{blocks}", x=0.01, ha="left")
    return figure


def draw_map(axes: Axes, values: Any) -> None:
    """A map of the grid, with the numbers written in where there is room."""
    axes.imshow(values, cmap="viridis", vmin=0, interpolation="nearest")
    bare(axes)
    if max(values.shape) > 9:
        return
    for (row, column), value in np.ndenumerate(values):
        dark = value < 0.6 * values.max()
        number = axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7.5)
        number.set_color("white" if dark else INK)
        number.set_in_layout(False)  # to measure each takes longer than to draw it


def bare(axes: Axes) -> None:
    """No ticks and no edges around what is an image."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def rows_of_panels(health: CodebookHealth, *, columns: int, height: float) -> tuple[Figure, list[list[Axes]]]:
    """A figure with one row a shown codebook."""
    rows = len(health.distances)
    figure = Figure(figsize=(8.4, 0.45 + height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    return figure, [list(row) for row in grid]


def panel_title(health: CodebookHealth, codebook: int, text: str) -> str:
    total = health.counting.num_codebooks
    return f"codebook {codebook + 1} of {total}: {text}" if total > 1 else text


def where(health: CodebookHealth) -> str:
    about = health.about
    return f"{counted(about['num_images'], 'image')} of {about['dataset']}, {about['split']}"


DRAWINGS = {
    "frequencies": Drawing(
        draw=draw_frequencies,
        shows="how often each code is used",
        caption="How often each code is used. In a healthy codebook most codes lie within a factor of ten of even use, "
        "and hardly any is never used.",
    ),
    "distances": Drawing(
        draw=draw_distances,
        shows="distances between codes",
        caption="How far apart the vectors of the codes lie. None should lie on top of another: that is one code with "
        "two names. Dark squares along the diagonal are families of similar codes; codes that are never used show in a "
        "colour of their own.",
    ),
    "positions": Drawing(
        draw=draw_positions,
        shows="use of codes by position on the grid",
        caption="Where on the grid codes are used. Few codes at a position are a fault unless the images are alike "
        "there, as at the edges of digits on black paper.",
    ),
    "examples": Drawing(
        draw=draw_examples,
        shows="patches of images beside the codes that stand for them",
        caption="What codes stand for: the positions, framed, whose latents lie nearest to a code, each from another "
        "image, and what the decoder decodes where every position has that code. The patches of a row should resemble "
        "each other inside the frame.",
    ),
}
