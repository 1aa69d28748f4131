"""One HTML page with the whole way on it, drawn from nothing but the files that the stages left on disk.

The page holds its images and charts itself and asks nothing of the network, so that it can be mailed or opened from a
disk. A stage whose folder is not given has no section.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from datasets import Dataset, DatasetDict

from vqtok.assignments import read_yaml
from vqtok.codes import codes_array, load_codes
from vqtok.errors import CheckpointError
from vqtok.files import write_text
from vqtok.hub import read_metric_rows
from vqtok.report.codebook import codebook_health
from vqtok.report.markup import number, section
from vqtok.report.sections import code_grids, code_use, prior_samples, prior_training, reconstructions, training
from vqtok.schema import read_object
from vqtok.text import counted
from vqtok.tokenizer import VQTokenizer

__all__ = ["write_report"]


def write_report(
    page: str | Path,
    *,
    title: str,
    tokenizer_run: str | Path,
    codes: str | Path | None = None,
    health: str | Path | None = None,
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
        health: the folder that `vqtok inspect --dataset` or `draw_health` wrote for that tokenizer.
        prior_run: a finished run folder of a prior over those codes.
        samples: an image grid that `vqtok sample` decoded, one row a class where the prior has classes.
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
        sections.append(code_use(grids, tokenizer))
    if health:
        sections.append(codebook_health(Path(health), run, tokenizer))
    if codes:
        sections.append(code_grids(grids, tokenizer))
    if prior_run:
        sections.append(prior_training(Path(prior_run), tokenizer))
    if samples:
        sections.append(prior_samples(Path(samples), Path(prior_run) if prior_run else None))
    if stages:
        sections.append(stage_table(Path(stages)))
    text = Template(files("vqtok.report").joinpath("templates", "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        lead=lead(run, tokenizer),
        sections="\n".join(section for section in sections if section),
        footer=f"Written by vqtok {version('vqtok')}. Tokenizer <code>{tokenizer.fingerprint[:12]}</code>.",
    )
    page = Path(page)
    write_text(page, text)
    return page


def lead(run: Path, tokenizer: VQTokenizer) -> str:
    """What the tokenizer does, in a sentence."""
    height, width = tokenizer.config.size
    dataset = Path(str(read_yaml(run / "config.yaml", error=CheckpointError).get("dataset", "images"))).name
    grid = " &times; ".join(map(str, tokenizer.grid))
    return (
        f"A tokenizer turned images of <em>{escape(dataset)}</em>, {height} &times; {width} pixels each, into grids "
        f"of {grid} codes out of {tokenizer.codebook_size:,}, and back into images."
    )


def tiles(run: Path, tokenizer: VQTokenizer, prior_run: Path | None) -> str:
    """The numbers of an evaluation and of the prior, large."""
    metrics = read_object(run / "model" / "metrics.json") if (run / "model" / "metrics.json").is_file() else {}
    bits = tokenizer.codes_per_image * math.log2(tokenizer.codebook_size)
    raw = math.prod(tokenizer.config.size) * tokenizer.config.num_channels * 8
    shown = [("Size of an image", f"{bits:,.4g} bits", f"1/{raw / bits:.3g} of its raw pixels")]
    if metrics:
        shown += [
            (
                "Error / variance",
                number(metrics["mse_over_variance"]),
                f"on {counted(metrics['num_images'], 'image')}",
            ),
            ("PSNR", number(metrics["psnr"], " dB"), "of the mean squared error"),
            ("SSIM", number(metrics["ssim"]), "1 is identical"),
            use_tile(metrics, tokenizer),
        ]
        if bits_per_dim := metrics.get("bits_per_dim"):
            prior = "learned" if "learned" in bits_per_dim else "uniform"
            of = ", given the class" if bits_per_dim[prior].get("labels") else ""
            of += ", of a density" if bits_per_dim.get("density") else ""
            shown.append(("Bits per dimension", number(bits_per_dim[prior]["total"]), f"with the {prior} prior{of}"))
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


def use_tile(metrics: Mapping[str, Any], tokenizer: VQTokenizer) -> tuple[str, str, str]:
    """The tile on the use of the codes."""
    if "bits_in_use" in metrics:
        bits = tokenizer.num_codebooks * math.log2(tokenizer.codebook_size)
        return "Bits in use", number(metrics["bits_in_use"]), f"of {bits:,.4g} of a position, counted by dimension"
    used = f"{metrics['codes_in_use']:,} of {metrics['codebook_size']:,} codes in use"
    return "Perplexity", number(metrics["perplexity"]), used


def all_grids(folder: Path, tokenizer: VQTokenizer) -> dict[str, Any]:
    """The array of grids of every split."""
    dataset = load_codes(folder, tokenizer=tokenizer)
    splits: dict[str, Dataset] = dict(dataset) if isinstance(dataset, DatasetDict) else {"train": dataset}
    return {str(split): codes_array(rows) for split, rows in splits.items()}


def stage_table(path: Path) -> str:
    """The commands that made all this, with the time each took."""
    rows = read_object(path).get("stages", [])
    cells = "".join(
        f"<tr><td><code>{escape(row['command'])}</code></td><td class=number>{row['seconds']:.0f} s</td></tr>"
        for row in rows
    )
    total = sum(row["seconds"] for row in rows)
    return section(
        "How it was made",
        f"These commands, one after another: {total / 60:.1f} minutes. Each leaves files that the next one reads.",
        f'<div class="scroll"><table><tr><th>command</th><th></th></tr>{cells}</table></div>',
    )
