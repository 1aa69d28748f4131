"""The part of the page on the health of the codebook, from what `draw_health` and training left behind."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from vqtok.errors import MismatchError
from vqtok.hub import read_metric_rows
from vqtok.report.charts import Line, line_chart
from vqtok.report.health import DRAWINGS, HEALTH
from vqtok.report.markup import image, number, section
from vqtok.report.sections import curve
from vqtok.schema import read_object
from vqtok.text import counted
from vqtok.tokenizer import VQTokenizer

__all__ = ["codebook_health"]


def codebook_health(folder: Path, run: Path, tokenizer: VQTokenizer) -> str:
    """The drawings, each with a few words, and the share of codes in use over the training of a run.

    Raises:
        MismatchError: the health of another tokenizer.
        VqtokError: a drawing or `health.json` is missing or damaged.
    """
    found = read_object(folder / HEALTH)
    if found.get("fingerprint") != tokenizer.fingerprint:
        raise MismatchError(
            f"{folder} holds the health of tokenizer {str(found.get('fingerprint'))[:12]}, and the page is about "
            f"{tokenizer.fingerprint[:12]}: run `vqtok inspect --dataset` on this one"
        )
    text = (
        f"On {counted(found['num_images'], 'image')} of <em>{escape(str(found['dataset']))}</em>, split "
        f"<em>{escape(str(found['split']))}</em>: {use_text(found)}"
    )
    drawings = [
        image(folder / f"{name}.png", each.shows, caption=each.caption, drawing=True) for name, each in DRAWINGS.items()
    ]
    return section("Health of the codebook", text, "\n".join([usage_over_training(run), *drawings]))


def use_text(found: Mapping[str, Any]) -> str:
    """The use of the codes in words, from `health.json`."""
    if "bits_in_use" in found:
        return (
            f"at most {number(found['bits_in_use'])} bits of a position in use, {found['bit_usage']:.1%} of what there "
            f"are, and {found['constant_dimensions']:,} dimensions constant. The {found['codebook_size']:,} codes are "
            f"too many to count, so the values of each dimension are; distances and examples are those of "
            f"{found['sampled_codes']:,} codes."
        )
    codes = found["codebook_size"] * found["num_codebooks"]
    return (
        f"{found['codes_in_use']:,} of {codes:,} codes in use, {found['dead_codes']:,} dead, perplexity "
        f"{number(found['perplexity'])}. The 1% most used codes take {found['share_of_top_percent']:.1%} of all "
        "positions."
    )


def usage_over_training(run: Path) -> str:
    """The share of codes in use, step by step, and what the log warned of."""
    rows = read_metric_rows(run)
    names = [("usage", "codes"), ("bit_usage", "bits")]  # a run has one of them
    metric, things = next((each for each in names if any(each[0] in row for row in rows)), names[0])
    seen = [
        Line(name, steps, shares)
        for name, split in (("training, over the last images", "train"), ("held out", "test"))
        for steps, shares in [curve(rows, split, metric, scale=100)]
        if steps
    ]
    warnings = "".join(f'<p class="note">{escape(str(row["note"]))}</p>' for row in rows if "note" in row)
    if not seen:
        return warnings
    chart = line_chart(
        f"share of {things} in use by training step",
        seen,
        x_label="step",
        y_label=f"{things} in use, %",
        floor=0,
        levels={f"all {things}": 100},
    )
    return f'{warnings}<div class="narrow">{chart}</div>'
