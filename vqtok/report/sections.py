"""The parts of the page, each a heading, a few words and what is drawn from the files of one stage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from vqtok.evaluation import CodeUse, count_codes
from vqtok.hub import newest_sample, read_metric_rows
from vqtok.report.charts import Line, bar_chart, line_chart
from vqtok.report.images import code_image_grid
from vqtok.report.markup import figure, image, section
from vqtok.schema import read_object
from vqtok.tokenizer import VQTokenizer

__all__ = ["code_grids", "code_use", "drawn_samples", "prior_training", "reconstructions", "training"]

GRIDS_SHOWN = 12


def reconstructions(run: Path) -> str:
    """The image grid that training decoded last."""
    grid, _ = newest_sample(run)
    if grid is None:
        return ""
    return section(
        "Reconstructions",
        "Held-out images that the tokenizer never saw in training. Under each row of originals, the same images "
        "after a trip through the codes.",
        image(grid, "rows of originals, each over the row of their reconstructions"),
    )


def training(run: Path, tokenizer: VQTokenizer) -> str:
    """Curves of the error and of the use of the codebook."""
    rows = read_metric_rows(run)
    if not rows:
        return ""
    test = [row for row in rows if row["split"] == "test"]
    error = line_chart(
        "reconstruction error by training step",
        [  # training works on pixels in [-1, 1], where squared errors are four times those in [0, 1]
            Line("training", *curve(rows, "train", "reconstruction", scale=0.25)),
            Line("held out", *curve(rows, "test", "mse")),
        ],
        x_label="step",
        y_label="mean squared error, pixels in [0, 1]",
        log=True,
    )
    use = line_chart(
        "perplexity of the codes by training step",
        [Line("training", *curve(rows, "train", "perplexity")), Line("held out", *curve(rows, "test", "perplexity"))],
        x_label="step",
        y_label="perplexity of the codes",
        levels={f"all {tokenizer.codebook_size:,} codes used alike": tokenizer.codebook_size},
    )
    end = f" It ended at {test[-1]['mse']:.4g} on held-out images." if test else ""
    return section(
        "Training the tokenizer",
        f"The error falls as encoder, codebook and decoder learn together.{end} Perplexity tells how many codes, "
        "used alike, would be as hard to guess as the ones in use.",
        f'<div class="charts">{error}{use}</div>',
    )


def code_use(grids: Mapping[str, Any], tokenizer: VQTokenizer) -> str:
    """The histogram of how often each code is used."""
    counts = sum(
        count_codes(codes, codebook_size=tokenizer.codebook_size, num_codebooks=tokenizer.num_codebooks)
        for codes in grids.values()
    )
    assert isinstance(counts, np.ndarray)
    use = CodeUse.from_counts(counts)
    shares = np.sort(counts.sum(axis=0))[::-1] / counts.sum()
    chart = bar_chart(
        "share of all positions that each code takes",
        100 * shares,
        x_label="codes, the most used first",
        y_label="share of all positions, %",
        levels={"if all were used alike": 100 / tokenizer.codebook_size},
    )
    images = sum(len(codes) for codes in grids.values())
    return section(
        "Use of the codes",
        f"Of {counts.size:,} codes, {use.codes_in_use:,} occur in {images:,} images, with a perplexity of "
        f"{use.perplexity:.4g}.",
        f'<div class="narrow">{chart}</div>',
    )


def code_grids(grids: Mapping[str, Any], tokenizer: VQTokenizer) -> str:
    """Grids in false colours under the images that they decode to."""
    split = "test" if "test" in grids else next(iter(grids))
    codes = grids[split][:GRIDS_SHOWN]
    if not len(codes):
        return ""
    grid = code_image_grid(tokenizer, codes, columns=GRIDS_SHOWN)
    return section(
        "Images as codes",
        f"What the prior reads: the grid of codes under each image that it decodes to, from the split "
        f"<em>{escape(split)}</em>. One square is one code; codes whose vectors are close have similar colours.",
        figure(grid, "decoded images over their grids of codes"),
    )


def prior_training(run: Path, tokenizer: VQTokenizer) -> str:
    """Curves of the prior's likelihood."""
    rows = read_metric_rows(run)
    if not rows:
        return ""
    test = [row for row in rows if row["split"] == "test"]
    levels = {"codes all alike": math.log2(tokenizer.codebook_size)}
    if test and "unigram_bits_per_code" in test[-1]:
        levels["frequencies alone"] = test[-1]["unigram_bits_per_code"]
    chart = line_chart(
        "bits per code by training step",
        [
            Line("training", *curve(rows, "train", "bits_per_code")),
            Line("held out", *curve(rows, "test", "bits_per_code")),
        ],
        x_label="step",
        y_label="bits per code",
        levels=levels,
    )
    return section(
        "Training the prior",
        "The prior learns which code follows those before it, given the class where there is one. Every bit below the "
        "dashed lines is something it knows about how the codes of an image hang together.",
        f'<div class="narrow">{chart}</div>',
    )


def drawn_samples(grid: Path, prior_run: Path | None) -> str:
    """Images that were never there, each row with the name of its class where there are classes."""
    names = read_object(prior_run / "model" / "config.json").get("vqtok", {}).get("label_names") if prior_run else None
    told = " Each row is one class." if names else ""
    return section(
        "Samples",
        f"Nobody drew these. The prior drew their codes one after another, and the tokenizer decoded them.{told}",
        image(grid, "images drawn from the prior", names or (), narrow=True),
    )


def curve(rows: list[dict[str, Any]], split: str, key: str, *, scale: float = 1.0) -> tuple[list[float], list[float]]:
    """Steps and values of one number of one split."""
    found = [(row["step"], row[key] * scale) for row in rows if row["split"] == split and key in row]
    return [step for step, _ in found], [value for _, value in found]
