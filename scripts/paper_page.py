"""The page of scripts/paper_table.py: what the models of a table reconstruct, sample and find between two images."""

from __future__ import annotations

from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import torch
from torch import Tensor

from vqtok.baselines import Autoencoder, Baseline, load_baseline
from vqtok.data import ImageDataset, image_grid, open_images, to_pixels
from vqtok.data.loading import sampled_rows
from vqtok.files import write_text
from vqtok.hub import open_folder
from vqtok.losses import to_levels
from vqtok.priors import PriorBinding, load_prior, sample_codes
from vqtok.report.markup import figure, section
from vqtok.tokenizer import VQTokenizer

SHOWN = 10  # images a row, for MNIST one of each class
STEPS = 10  # images from one image to another, both included


def write_page(out: Path, dataset: str, rows: list[dict[str, Any]], table: str) -> Path:
    """Write OUT/index.html: the table, and under it each model's images beside those of the others."""
    models = {row["name"]: load(out / row["name"]) for row in rows}
    sections = [
        section("Bits per dimension", "On the whole test split.", f'<div class="scroll">{html_table(table)}</div>'),
        *(reconstructions(dataset, split, models) for split in ("train", "test")),
        samples(out, models),
        interpolations(dataset, models),
        section("Commands", "Each row was made by these.", commands(rows)),
    ]
    template = files("vqtok.report").joinpath("templates", "page.html").read_text(encoding="utf-8")
    page = out / "index.html"
    write_text(
        page,
        Template(template).substitute(
            title="VQ-VAE and what it is compared with",
            lead=f"Models of images of <em>{escape(Path(dataset).name)}</em>, all on the same networks, as in "
            "section 4.1 of van den Oord et al. 2017.",
            sections="\n".join(sections),
            footer=f"Written by vqtok {version('vqtok')}.",
        ),
    )
    return page


def load(run: Path) -> VQTokenizer | Baseline:
    kind = open_folder(run).kind
    return VQTokenizer.from_pretrained(run / "model").eval() if kind == "tokenizer" else load_baseline(run).eval()


def images_of(dataset: str, split: str, model: VQTokenizer | Baseline) -> tuple[Tensor, Tensor | None]:
    """Some images of a split, pixels (SHOWN, C, H, W), and their labels; one of each class where there are ten."""
    source = open_images(dataset, split=split)
    config = model.config
    images = ImageDataset(source, image_size=config.size, num_channels=config.num_channels, resample=config.resample)
    candidates = sampled_rows(len(images), 500)
    pixels, _, _ = images.read(candidates)
    if images.labels is None:
        return to_pixels(pixels[:SHOWN]), None
    labels = images.labels[candidates]
    chosen = [int((labels == label).nonzero()[0]) for label in sorted(set(labels.tolist()))][:SHOWN]
    return to_pixels(pixels[chosen]), labels[chosen]


@torch.no_grad()
def reconstructions(dataset: str, split: str, models: dict[str, VQTokenizer | Baseline]) -> str:
    pixels, labels = images_of(dataset, split, next(iter(models.values())))
    rows = {"original": pixels}
    for name, model in models.items():
        rows[name] = (
            model.decode(model.encode(pixels))
            if isinstance(model, VQTokenizer)
            else model.reconstruct(pixels, labels if model.label_names else None)
        )
    what = "training images" if split == "train" else "test images"
    return section(f"Reconstructions of {what}", "The mean of p(x | z), for z without noise.", drawn(rows, what))


@torch.no_grad()
def samples(out: Path, models: dict[str, VQTokenizer | Baseline]) -> str:
    rows = {}
    for name, model in models.items():
        if isinstance(model, Autoencoder):
            continue
        if isinstance(model, VQTokenizer):
            prior = load_prior(out / f"{name}-prior")
            classes = PriorBinding.from_config(prior.config).num_classes
            labels = list(range(min(classes, SHOWN))) or None
            rows[name] = model.decode(sample_codes(prior, num_images=SHOWN, labels=labels, seed=0))
        else:
            of_class = torch.arange(SHOWN) % len(model.label_names) if model.label_names else None
            rows[name] = model.sample(SHOWN, of_class, seed=0)
    text = "Of a VQ-VAE from its learned prior, of the others from the prior they were trained with, without choosing."
    return section("Samples", text, drawn(rows, "samples"))


@torch.no_grad()
def interpolations(dataset: str, models: dict[str, VQTokenizer | Baseline]) -> str:
    pixels, labels = images_of(dataset, "test", next(iter(models.values())))
    rows = {}
    for name, model in models.items():
        if isinstance(model, VQTokenizer):
            rows[name] = between(model, pixels[1], pixels[8])
        else:
            label = labels[1:2] if model.label_names and labels is not None else None
            rows[name] = model.interpolate(pixels[1:2], pixels[8:9], STEPS, label)[0]
    text = "Latents mixed linearly between two test images; those of a VQ-VAE before each is replaced by a code."
    return section("Interpolations", text, drawn(rows, "interpolations"))


def between(model: VQTokenizer, first: Tensor, second: Tensor) -> Tensor:
    """Pixels (STEPS, C, H, W) of latents between those of two images, each replaced by its code."""
    a, b = model.encoder(model.checked(torch.stack([first, second]))).split(1)
    mixed = torch.lerp(a, b, torch.linspace(0, 1, STEPS)[:, None, None, None])
    return model.decode(model.quantizer.encode(mixed))


def drawn(rows: dict[str, Tensor], what: str) -> str:
    """One image grid, a row of images for each name."""
    images = [image for pixels in rows.values() for image in to_levels(pixels).to(torch.uint8).numpy()]
    return figure(image_grid(images, columns=SHOWN, scale=3 if images[0].shape[1] <= 32 else 1), what, list(rows))


def html_table(markdown: str) -> str:
    """A Markdown table as HTML."""
    head, _, *lines = [[cell.strip() for cell in line.strip("| \n").split("|")] for line in markdown.splitlines()]
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><td>{escape(line[0])}</td>{''.join(f'<td class=number>{escape(cell)}</td>' for cell in line[1:])}</tr>"
        for line in lines
    )
    return f"<table><tr>{cells}</tr>{body}</table>"


def commands(rows: list[dict[str, Any]]) -> str:
    lines = ""
    for row in rows:
        listed = "<br>".join(f"<code>{escape(line)}</code>" for line in row["commands"])
        lines += f"<tr><td>{escape(row['name'])}</td><td>{listed}</td></tr>"
    return f'<div class="scroll"><table>{lines}</table></div>'
