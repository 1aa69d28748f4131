"""The part of the page on the health of the codebook, from what `draw_health` and training left behind."""

from __future__ import annotations

from html import escape
from pathlib import Path

from vqtok.errors import MismatchError
from vqtok.hub import read_metric_rows
from vqtok.report.charts import Line, line_chart
from vqtok.report.health import HEALTH
from vqtok.report.markup import image, number, section
from vqtok.report.sections import curve
from vqtok.schema import read_object
from vqtok.tokenizer import VQTokenizer

__all__ = ["codebook_health"]

# Drawing, what it shows, and what it looks like where all is well.
DRAWINGS = {
    "frequencies": (
        "how often each code is used",
        "How often each code is used. In a healthy codebook most codes lie within a factor of ten of even use, and "
        "hardly any is never used.",
    ),
    "distances": (
        "distances between codes",
        "How far apart the vectors of the codes lie. None should lie on top of another: that is one code with two "
        "names. Dark squares along the diagonal are families of similar codes; codes that are never used show in a "
        "colour of their own.",
    ),
    "positions": (
        "use of codes by position on the grid",
        "Where on the grid codes are used. Few codes at a position are a fault unless the images are alike there, as "
        "at the edges of digits on black paper.",
    ),
    "examples": (
        "patches of images beside the codes that stand for them",
        "What codes stand for: the positions, framed, whose latents lie nearest to a code, each from another image, "
        "and what the decoder decodes where every position has that code. The patches of a row should resemble each "
        "other inside the frame.",
    ),
}


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
    codes = found["codebook_size"] * found["num_codebooks"]
    text = (
        f"On {found['num_images']:,} images of <em>{escape(str(found['dataset']))}</em>, split "
        f"<em>{escape(str(found['split']))}</em>: {found['codes_in_use']:,} of {codes:,} codes in use, "
        f"{found['dead_codes']:,} dead, perplexity {number(found['perplexity'])}. The 1% most used codes take "
        f"{found['share_of_top_percent']:.1%} of all positions."
    )
    drawings = [
        image(folder / f"{name}.png", alternative, caption=caption, drawing=True)
        for name, (alternative, caption) in DRAWINGS.items()
    ]
    return section("Health of the codebook", text, "\n".join([usage_over_training(run), *drawings]))


def usage_over_training(run: Path) -> str:
    """The share of codes in use, step by step, and what the log warned of."""
    rows = read_metric_rows(run)
    seen = [
        Line(name, steps, shares)
        for name, split in (("training, over the last images", "train"), ("held out", "test"))
        for steps, shares in [curve(rows, split, "usage", scale=100)]
        if steps
    ]
    warnings = "".join(f'<p class="note">{escape(str(row["note"]))}</p>' for row in rows if "note" in row)
    if not seen:
        return warnings
    chart = line_chart(
        "share of codes in use by training step",
        seen,
        x_label="step",
        y_label="codes in use, %",
        floor=0,
        levels={"all codes": 100},
    )
    return f'{warnings}<div class="narrow">{chart}</div>'
