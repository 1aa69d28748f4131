"""One HTML page with the whole way on it, drawn from nothing but the files that the stages left on disk.

The page holds its pictures and charts itself and asks nothing of the network, so that it can be mailed or opened from a
disk. A stage whose folder is not given has no section.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from PIL import Image

from vqtok.codes import codes_array, load_codes
from vqtok.errors import DataError
from vqtok.evaluation import CodeUse, count_codes
from vqtok.report.charts import Line, bar_chart, line_chart
from vqtok.report.files import newest_sheet, read_json, read_metric_rows, read_yaml
from vqtok.report.pictures import code_sheet, data_uri
from vqtok.tokenizer import VQTokenizer

__all__ = ["write_report"]

GRIDS_SHOWN = 12


def write_report(
    page: str | Path,
    *,
    title: str,
    tokenizer_run: str | Path,
    codes: str | Path | None = None,
    prior_run: str | Path | None = None,
    samples: str | Path | None = None,
    stages: str | Path | None = None,
) -> Path:
    """Write the page, whole or not at all; an earlier one is replaced.

    Args:
        page: the HTML file.
        title: of the page.
        tokenizer_run: a finished run folder, evaluated or not.
        codes: a codes folder of that tokenizer.
        prior_run: a finished run folder of a prior over those codes.
        samples: a sheet that `vqtok sample` painted, one row a class where the prior has classes.
        stages: a JSON file {"stages": [{"command": ..., "seconds": ...}, ...]}.

    Raises:
        VqtokError: a folder that is missing or damaged, or codes of another tokenizer.
    """
    run = Path(tokenizer_run)
    tokenizer = VQTokenizer.from_pretrained(run / "model")
    sections = [tiles(run, tokenizer, Path(prior_run) if prior_run else None)]
    sections += [reconstructions(run), training(run, tokenizer)]
    if codes:
        grids = all_grids(Path(codes), tokenizer)
        sections += [code_use(grids, tokenizer), code_grids(grids, tokenizer)]
    if prior_run:
        sections.append(prior_training(Path(prior_run), tokenizer))
    if samples:
        sections.append(drawn_samples(Path(samples), Path(prior_run) if prior_run else None))
    if stages:
        sections.append(stage_table(Path(stages)))
    text = Template(files("vqtok.report").joinpath("templates", "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        lead=lead(run, tokenizer),
        sections="\n".join(section for section in sections if section),
        footer=f"Written by vqtok {version('vqtok')}. Tokenizer <code>{tokenizer.fingerprint[:12]}</code>.",
    )
    page = Path(page)
    partial = page.with_name(f".{page.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, page)
    finally:
        partial.unlink(missing_ok=True)
    return page


def lead(run: Path, tokenizer: VQTokenizer) -> str:
    """What the tokenizer does, in a sentence."""
    height, width = tokenizer.config.size
    dataset = Path(str(read_yaml(run / "config.yaml").get("dataset", "pictures"))).name
    grid = " &times; ".join(map(str, tokenizer.grid))
    return (
        f"A tokenizer turned pictures of <em>{escape(dataset)}</em>, {height} &times; {width} pixels each, into grids "
        f"of {grid} codes out of {tokenizer.codebook_size:,}, and back into pictures."
    )


def tiles(run: Path, tokenizer: VQTokenizer, prior_run: Path | None) -> str:
    """The numbers of an evaluation and of the prior, large."""
    metrics = read_json(run / "model" / "metrics.json") if (run / "model" / "metrics.json").is_file() else {}
    bits = tokenizer.codes_per_image * math.log2(tokenizer.codebook_size)
    raw = math.prod(tokenizer.config.size) * tokenizer.config.num_channels * 8
    shown = [("Size of a picture", f"{bits:,.4g} bits", f"1/{raw / bits:.3g} of its raw pixels")]
    if metrics:
        shown += [
            (
                "Error over variance",
                number(metrics["mse_over_variance"]),
                f"{metrics['num_images']:,} held-out pictures",
            ),
            ("PSNR", number(metrics["psnr"], " dB"), "of the mean squared error"),
            ("SSIM", number(metrics["ssim"]), "1 is identical"),
            (
                "Perplexity",
                number(metrics["perplexity"]),
                f"{metrics['codes_in_use']:,} of {metrics['codebook_size']:,} codes in use",
            ),
        ]
    held_out = [row for row in read_metric_rows(prior_run) if row["split"] == "test"] if prior_run else []
    if held_out:
        shown.append(("Prior", f"{held_out[-1]['bits_per_code']:.3g} bits", "per held-out code"))
    return (
        '<dl class="tiles">'
        + "".join(
            f'<div class="tile"><dt>{name}</dt><dd>{value}<small>{unit}</small></dd></div>'
            for name, value, unit in shown
        )
        + "</dl>"
    )


def reconstructions(run: Path) -> str:
    """The sheet that training painted last."""
    sheet = newest_sheet(run)
    if sheet is None:
        return ""
    return section(
        "Reconstructions",
        "Held-out pictures that the tokenizer never saw in training. Under each row of originals, the same pictures "
        "after a trip through the codes.",
        image(sheet, "rows of originals, each over the row of their reconstructions"),
    )


def training(run: Path, tokenizer: VQTokenizer) -> str:
    """Curves of the error and of the use of the codebook."""
    rows = read_metric_rows(run)
    if not rows:
        return ""
    test = [row for row in rows if row["split"] == "test"]
    error = line_chart(
        "error",
        [  # training works on pixels in [-1, 1], where squared errors are four times those in [0, 1]
            Line("training", *curve(rows, "train", "reconstruction", scale=0.25)),
            Line("held out", *curve(rows, "test", "mse")),
        ],
        x_label="step",
        y_label="mean squared error, pixels in [0, 1]",
        log=True,
    )
    use = line_chart(
        "perplexity",
        [Line("training", *curve(rows, "train", "perplexity")), Line("held out", *curve(rows, "test", "perplexity"))],
        x_label="step",
        y_label="perplexity of the codes",
        levels={f"all {tokenizer.codebook_size:,} codes used alike": tokenizer.codebook_size},
    )
    end = f" It ended at {test[-1]['mse']:.4g} on held-out pictures." if test else ""
    return section(
        "Training the tokenizer",
        f"The error falls as encoder, codebook and decoder learn together.{end} Perplexity tells how many codes, "
        "used alike, would be as hard to guess as the ones in use.",
        f'<div class="charts">{error}{use}</div>',
    )


def all_grids(folder: Path, tokenizer: VQTokenizer) -> dict[str, Any]:
    """The array of grids of every split."""
    dataset = load_codes(folder, tokenizer=tokenizer)
    splits: dict[str, Dataset] = dict(dataset) if isinstance(dataset, DatasetDict) else {"train": dataset}
    return {str(split): codes_array(rows) for split, rows in splits.items()}


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
        "use",
        100 * shares,
        x_label="codes, the most used first",
        y_label="share of all positions, %",
        levels={"if all were used alike": 100 / tokenizer.codebook_size},
    )
    pictures = sum(len(codes) for codes in grids.values())
    return section(
        "Use of the codes",
        f"Of {counts.size:,} codes, {use.codes_in_use:,} occur in {pictures:,} pictures, with a perplexity of "
        f"{use.perplexity:.4g}. A code that stands for an empty corner is bound to be used more than others.",
        f'<div class="narrow">{chart}</div>',
    )


def code_grids(grids: Mapping[str, Any], tokenizer: VQTokenizer) -> str:
    """Grids in false colours under the pictures that they decode to."""
    split = "test" if "test" in grids else next(iter(grids))
    codes = grids[split][:GRIDS_SHOWN]
    if not len(codes):
        return ""
    sheet = code_sheet(tokenizer, codes, columns=GRIDS_SHOWN)
    return section(
        "Pictures as codes",
        f"What the prior reads: the grid of codes under each picture that it decodes to, from the split "
        f"<em>{escape(split)}</em>. One square is one code; codes whose vectors are close have similar colours.",
        figure(sheet, "decoded pictures over their grids of codes"),
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
        "prior",
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
        "dashed lines is something it knows about how the codes of a picture hang together.",
        f'<div class="narrow">{chart}</div>',
    )


def drawn_samples(sheet: Path, prior_run: Path | None) -> str:
    """Pictures that were never there, each row with the name of its class where there are classes."""
    names = read_json(prior_run / "model" / "config.json").get("vqtok", {}).get("label_names") if prior_run else None
    told = " Each row is one class." if names else ""
    return section(
        "Samples",
        f"Nobody drew these. The prior drew their codes one after another, and the tokenizer painted them.{told}",
        image(sheet, "pictures drawn from the prior", names or (), narrow=True),
    )


def stage_table(path: Path) -> str:
    """The commands that made all this, with the time each took."""
    rows = read_json(path).get("stages", [])
    cells = "".join(
        f"<tr><td><code>{escape(row['command'])}</code></td><td class=number>{row['seconds']:.0f} s</td></tr>"
        for row in rows
    )
    total = sum(row["seconds"] for row in rows)
    return section(
        "How it was made",
        f"These commands, one after another, {total / 60:.1f} minutes in all. Each leaves files that the next one reads.",
        f'<div class="scroll"><table><tr><th>command</th><th></th></tr>{cells}</table></div>',
    )


def curve(rows: list[dict[str, Any]], split: str, key: str, *, scale: float = 1.0) -> tuple[list[float], list[float]]:
    """Steps and values of one number of one split."""
    found = [(row["step"], row[key] * scale) for row in rows if row["split"] == split and key in row]
    return [step for step, _ in found], [value for _, value in found]


def section(heading: str, text: str, body: str) -> str:
    return f"<section>\n<h2>{heading}</h2>\n<p>{text}</p>\n{body}\n</section>"


def image(path: Path, alternative: str, names: tuple[str, ...] | list[str] = (), *, narrow: bool = False) -> str:
    """A picture file as a figure, its rows named on the left.

    Raises:
        DataError: the file is missing or no picture.
    """
    try:
        with Image.open(path) as opened:
            opened.load()
            return figure(opened, alternative, names, narrow=narrow)
    except OSError as error:
        raise DataError(f"{path} cannot be read as a picture: {error}") from error


def figure(
    picture: Image.Image, alternative: str, names: tuple[str, ...] | list[str] = (), *, narrow: bool = False
) -> str:
    labels = "".join(f"<span>{escape(name)}</span>" for name in names)
    side = f'<div class="classes">{labels}</div>' if names else ""
    return (
        f'<figure class="{"narrow" if narrow else "wide"}"><div class="sheet">{side}'
        f'<img alt="{escape(alternative)}" src="{data_uri(picture)}"></div></figure>'
    )


def number(value: float | None, unit: str = "") -> str:
    return "&ndash;" if value is None else f"{value:.3g}{unit}"
