"""Codes beside the patches of images that they stand for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vqtok.evaluation import CodebookHealth
from vqtok.evaluation.health import PATCHES
from vqtok.report.style import COLOURS

__all__ = ["draw_examples"]

TILE = 0.62  # inches, of a patch with the gap after it
GAP = 0.08  # of a tile
MARGIN, TITLE = 0.12, 0.25  # inches
HEAD = 0.5  # tiles, the height of the names of the columns
NAMES = 1.7  # tiles, the width of what is written of a code


def draw_examples(health: CodebookHealth) -> Figure:
    """A row a code, the most used first: its share, what the decoder decodes for it, and the patches nearest to it."""
    examples = health.examples
    columns = NAMES + 1.5 + PATCHES
    width, height = columns * TILE, (len(examples) + HEAD) * TILE  # inches
    whole = width + 2 * MARGIN, height + 2 * MARGIN + TITLE
    figure = Figure(figsize=whole)
    axes = figure.add_axes((MARGIN / whole[0], MARGIN / whole[1], width / whole[0], height / whole[1]))
    axes.set_axis_off()
    axes.text(NAMES + 0.5 - GAP / 2, -0.12, "decoded", ha="center", va="bottom")
    axes.text(NAMES + 1.5, -0.12, "positions of images whose latents lie nearest to the code", va="bottom")
    several = health.counting.num_codebooks > 1
    for row, each in enumerate(examples):
        code = f"code {each.code:,}" if each.code < 10**9 else f"code\n{each.code:,}"
        name = f"codebook {each.codebook + 1}\n{code}" if several else code
        axes.text(0, row + 0.5 - GAP / 2, f"{name}\n{100 * each.share:.2g}%", va="center", linespacing=1.3)
        tiles = [(NAMES, each.decoded), *((NAMES + 1.5 + i, patch) for i, patch in enumerate(each.patches))]
        for left, pixels in tiles:
            side = 1 - GAP
            axes.imshow(in_colour(pixels), extent=(left, left + side, row + side, row), interpolation="nearest")
            frame(axes, (left, row), side, pixels[-1] > 0, "#aab1ba", 0.6)
            frame(axes, (left + side / 3, row + side / 3), side / 3, np.ones((1, 1), dtype=bool), COLOURS[1], 1.0)
    axes.set_xlim(0, columns)
    axes.set_ylim(len(examples), -HEAD)
    axes.set_aspect("equal")
    sample = " of a sample" if health.counting.by_dimension else ""
    title = f"What codes{sample} stand for, from the most used to the least used"
    figure.suptitle(title, x=MARGIN / whole[0], y=1 - MARGIN / whole[1], ha="left", va="top")
    return figure


def frame(
    axes: Axes, corner: tuple[float, float], side: float, inside: npt.NDArray[np.bool_], colour: str, width: float
) -> None:
    """A line around the part of a square that is inside the image."""
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) / inside.shape[1 - axis] * side for axis in (1, 0))
    pixel = side / len(inside)
    left, top = corner[0] + columns[0], corner[1] + rows[0]
    size = columns[-1] - columns[0] + pixel, rows[-1] - rows[0] + pixel
    axes.add_patch(Rectangle((left, top), *size, fill=False, edgecolor=colour, linewidth=width))


def in_colour(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Grey or RGB with alpha, (2 or 4, H, W) -> (H, W, 4)."""
    colour, alpha = pixels[:-1], pixels[-1:]
    return np.concatenate([np.broadcast_to(colour, (3, *alpha.shape[1:])), alpha]).transpose(1, 2, 0)
