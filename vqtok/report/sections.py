"""The parts of the page, each a heading, a few words and what the files of one stage show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vqtok import evaluation
from vqtok.evaluation import count_codes
from vqtok.hub import newest_sample, read_metric_rows
from vqtok.losses import Likelihood
from vqtok.quantizers import CodeCounting, CodeUse
from vqtok.quantizers.counting import COUNTABLE
from vqtok.report.charts import Line, bar_chart, line_chart
from vqtok.report.images import code_image_grid
from vqtok.report.markup import figure, image, section
from vqtok.schema import read_object
from vqtok.text import counted
from vqtok.tokenizer import VQTokenizer

__all__ = ["code_grids", "code_use", "prior_samples", "prior_training", "reconstructions", "training"]

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


# Of the use of codes, by whether dimensions are counted.
MEANING = {
    False: "Perplexity tells how many codes, used alike, would be as hard to guess as the ones in use.",
    True: "The codes are too many to count, so the values of each of their dimensions are: the entropies of the "
    "dimensions add up to the bits that a code carries at most.",
}


def training(run: Path, tokenizer: VQTokenizer) -> str:
    """Curves of the error and of the use of the codebook."""
    rows = read_metric_rows(run)
    if not rows:
        return ""
    test = [row for row in rows if row["split"] == "test"]
    of_levels = isinstance(tokenizer.likelihood, Likelihood)
    error = distortion_over_training(rows) if of_levels else error_over_training(rows)
    by_dimension = CodeCounting.of(tokenizer.quantizer).by_dimension
    use = bits_over_training(rows, tokenizer) if by_dimension else perplexity_over_training(rows, tokenizer)
    what, key = ("distortion", "distortion") if of_levels else ("error", "mse")
    end = f" It ended at {test[-1][key]:.4g} on held-out images." if test else ""
    return section(
        "Training the tokenizer",
        f"The {what} falls as encoder, codebook and decoder learn together.{end} {MEANING[by_dimension]}",
        f'<div class="charts">{error}{use}</div>',
    )


def error_over_training(rows: list[dict[str, Any]]) -> str:
    """The curve of the mean squared error that is trained for."""
    return line_chart(
        "reconstruction error by training step",
        [  # training works on pixels in [-1, 1], where squared errors are four times those in [0, 1]
            Line("training", *curve(rows, "train", "reconstruction", scale=0.25)),
            Line("held out", *curve(rows, "test", "mse")),
        ],
        x_label="step",
        y_label="mean squared error, pixels in [0, 1]",
        log=True,
    )


def distortion_over_training(rows: list[dict[str, Any]]) -> str:
    """The curve of a likelihood, which training takes in nats."""
    return line_chart(
        "distortion by training step",
        [
            Line("training", *curve(rows, "train", "reconstruction", scale=1 / math.log(2))),
            Line("held out", *curve(rows, "test", "distortion")),
        ],
        x_label="step",
        y_label="-log2 p(x | z), bits per dimension",
    )


def perplexity_over_training(rows: list[dict[str, Any]], tokenizer: VQTokenizer) -> str:
    """The curve of the use of codes that are counted one by one."""
    return line_chart(
        "perplexity of the codes by training step",
        [Line("training", *curve(rows, "train", "perplexity")), Line("held out", *curve(rows, "test", "perplexity"))],
        x_label="step",
        y_label="perplexity of the codes",
        levels={f"all {tokenizer.codebook_size:,} codes used alike": tokenizer.codebook_size},
    )


def bits_over_training(rows: list[dict[str, Any]], tokenizer: VQTokenizer) -> str:
    """The curve of the use of codes that are counted by dimension."""
    bits = tokenizer.num_codebooks * math.log2(tokenizer.codebook_size)
    return line_chart(
        "bits in use by training step",
        [Line("training", *curve(rows, "train", "bits_in_use")), Line("held out", *curve(rows, "test", "bits_in_use"))],
        x_label="step",
        y_label="bits in use by dimension",
        levels={f"all {bits:.4g} bits": bits},
    )


def code_use(grids: Mapping[str, Any], tokenizer: VQTokenizer) -> str:
    """How many codes are in use, and the histogram of how often, unless there are too many for one."""
    sizes = {"codebook_size": tokenizer.codebook_size, "num_codebooks": tokenizer.num_codebooks}
    chart = ""
    if tokenizer.codebook_size > COUNTABLE:
        use = evaluation.code_use(np.concatenate(list(grids.values())), **sizes)
    else:
        counts = np.sum([count_codes(codes, **sizes) for codes in grids.values()], axis=0)  # (Q, K)
        use = CodeUse.from_counts(torch.from_numpy(counts), tokenizer.codebook_size)
        chart = code_histogram(counts)
    images = sum(len(codes) for codes in grids.values())
    return section(
        "Use of the codes",
        f"Of {use.num_codes:,} codes, {use.codes_in_use:,} occur in {counted(images, 'image')}, with a perplexity "
        f"of {use.perplexity:.4g}.",
        chart,
    )


def code_histogram(counts: npt.NDArray[np.int64]) -> str:
    """How often each code is used, from counts (Q, K)."""
    chart = bar_chart(
        "share of all positions that each code takes",
        100 * np.sort(counts.sum(axis=0))[::-1] / counts.sum(),
        x_label="codes, the most used first",
        y_label="share of all positions, %",
        levels={"if all were used alike": 100 / counts.shape[1]},
    )
    return f'<div class="narrow">{chart}</div>'


def code_grids(grids: Mapping[str, Any], tokenizer: VQTokenizer) -> str:
    """Grids in false colours under the images that they decode to."""
    split = "test" if "test" in grids else next(iter(grids))
    codes = grids[split][:GRIDS_SHOWN]
    if not len(codes):
        return ""
    grid = code_image_grid(tokenizer, codes, columns=GRIDS_SHOWN)
    first = " of the first codebook" if tokenizer.num_codebooks > 1 else ""
    return section(
        "Images as codes",
        f"What the prior reads: the grid of codes under each image that it decodes to, from the split "
        f"<em>{escape(split)}</em>. One square is one code{first}; codes whose vectors are close have similar colours.",
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


def prior_samples(grid: Path, prior_run: Path | None) -> str:
    """Images that were never there, each row with the name of its class where there are classes."""
    names = read_object(prior_run / "model" / "config.json").get("vqtok", {}).get("label_names") if prior_run else None
    told = " Each row is one class." if names else ""
    return section(
        "Samples",
        f"New images: the prior sampled their codes one after another, and the tokenizer decoded them.{told}",
        image(grid, "images sampled from the prior", names or (), narrow=True),
    )


def curve(rows: list[dict[str, Any]], split: str, key: str, *, scale: float = 1.0) -> tuple[list[float], list[float]]:
    """Steps and values of one number of one split."""
    found = [(row["step"], row[key] * scale) for row in rows if row["split"] == split and key in row]
    return [step for step, _ in found], [value for _, value in found]
