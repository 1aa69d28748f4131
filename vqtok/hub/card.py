"""The page that a model is read about on the Hub: what it is, how to use it, what was measured, how it was made.

The text stands in `templates/`; the figures come from files beside the model, see `run_metadata.py`, and where there
are none the card says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import torch
import yaml
from huggingface_hub import EvalResult, ModelCardData

from vqtok.files import write_bytes
from vqtok.hub.folder import CARD, ModelFolder, open_folder
from vqtok.hub.run_metadata import RunMetadata, find_run_metadata
from vqtok.quantizers import build_quantizer

__all__ = ["MARK", "Card", "card_of", "prior_card", "tokenizer_card", "write_card"]

MARK = "<!-- Written by vqtok. To keep a text of your own, change it and delete this line. -->"
IMAGES = {"tokenizer": "reconstructions.png", "prior": "samples.png"}
CHANNELS = {1: "grey", 3: "RGB"}
ARCHITECTURES = {"llama": "Llama transformer", "vqtok-pixelcnn": "gated PixelCNN"}

# The numbers a card shows, in this order, under the names they have on disk.
MEANINGS = {
    "mse": "mean squared error of pixels in [0, 1]",
    "mse_over_variance": "mean squared error over the variance of the data",
    "psnr": "peak signal-to-noise ratio, dB",
    "ssim": "structural similarity, 1 at best",
    "perplexity": "codes in even use that would be as hard to guess",
    "usage": "share of codes in use",
    "codes_in_use": "codes that occur at least once",
    "loss": "nats per code",
    "bits_per_code": "bits per code",
    "unigram_bits_per_code": "bits per code for a guess that looks at no other code",
}


@dataclass(frozen=True)
class Card:
    """The text of a README.md and the images it shows, by the name under which they lie beside it."""

    text: str
    images: Mapping[str, Path] = field(default_factory=dict)


def tokenizer_card(
    folder: str | Path,
    *,
    run: Path | None = None,
    metrics: Mapping[str, Any] | None = None,
    repo_id: str | None = None,
) -> str:
    """The card of a tokenizer folder.

    Args:
        folder: what `save_pretrained` wrote.
        run: run folder with the recipe and images; by default the one that the folder is the `model/` of.
        metrics: of an evaluation; by default those in metrics.json of the folder.
        repo_id: where it will be; by default the card names the folder.

    Raises:
        CheckpointError: no such folder, or a file in it that cannot be read.
    """
    model = open_folder(folder)
    run_metadata = find_run_metadata(model.path, IMAGES["tokenizer"], run=run, metrics=metrics)
    return tokenizer_text(model, run_metadata, repo_id or str(model.path))


def prior_card(
    folder: str | Path,
    *,
    run: Path | None = None,
    metrics: Mapping[str, Any] | None = None,
    repo_id: str | None = None,
) -> str:
    """The card of a prior folder; arguments and errors are those of `tokenizer_card`."""
    model = open_folder(folder)
    run_metadata = find_run_metadata(model.path, IMAGES["prior"], run=run, metrics=metrics)
    return prior_text(model, run_metadata, repo_id or str(model.path))


def card_of(folder: ModelFolder, repo_id: str, origin: Path) -> Card:
    """The card of either kind, with the run_metadata that lies in and beside `origin`.

    A README.md in the origin that people wrote, which has lost the mark of a generated one, is taken as it is.
    """
    name = IMAGES[folder.kind]
    run_metadata = find_run_metadata(origin, name)
    images = {name: run_metadata.image} if run_metadata.image else {}
    written = origin / CARD
    if written.is_file() and MARK not in (text := written.read_text(encoding="utf-8")):
        return Card(text, images)
    build = tokenizer_text if folder.kind == "tokenizer" else prior_text
    return Card(build(folder, run_metadata, repo_id), images)


def write_card(folder: str | Path) -> None:
    """Write README.md and its image into a tokenizer or prior folder; a README.md that people wrote stays."""
    model = open_folder(folder)
    card = card_of(model, str(model.path), model.path)
    contents = {name: path.read_bytes() for name, path in card.images.items()} | {CARD: card.text.encode()}
    for name, content in contents.items():
        write_bytes(model.path / name, content)


def tokenizer_text(folder: ModelFolder, run_metadata: RunMetadata, repository: str) -> str:
    """Fill in the template of a tokenizer."""
    network = folder.config["network"]
    with torch.device("meta"):  # its sizes, at no cost
        quantizer = build_quantizer(folder.config["quantizer"])
    height, width = folder.config["image_size"]
    factor, size, books = network["downsample_factor"], quantizer.codebook_size, quantizer.num_codebooks
    codebooks = f"{books} times {size} codes" if books > 1 else f"{size} codes"
    grid = [height // factor, width // factor, *([books] if books > 1 else [])]
    colours = CHANNELS.get(folder.config["num_channels"], f"{folder.config['num_channels']} channels")
    facts = {
        "images": f"{height}x{width} pixels, {colours}, resized by {folder.config['resample']} and cropped if needed",
        "grid": f"{' x '.join(map(str, grid))}, {math.prod(grid)} codes per image",
        "codebook": f"{codebooks}, for latents of {quantizer.code_dim} dimensions",
        "quantizer": options(folder.config["quantizer"], without=("codebook_size", "code_dim")),
        "network": options(network),
        "size of an image in codes": f"{math.ceil(math.prod(grid) * math.log2(size))} bits",
    }
    summary = (
        f"An image tokenizer: it turns an image of {height}x{width} pixels into a grid of "
        f"{' x '.join(map(str, grid))} whole numbers below {size}, and such a grid back into an image."
    )
    return fill(
        "tokenizer.md",
        metadata(folder, run_metadata, repository, "image-feature-extraction"),
        name=short_name(repository),
        summary=summary,
        facts=rows(facts),
        repository=repository,
        shape=f"({', '.join(map(str, [1, *grid]))})",
        metrics=metrics_section(run_metadata),
        image=image_section(
            run_metadata, "Reconstructions", IMAGES["tokenizer"], "Held-out images over their reconstructions"
        ),
        recipe=recipe_section(run_metadata),
        paper=quantizer.paper,
    )


def prior_text(folder: ModelFolder, run_metadata: RunMetadata, repository: str) -> str:
    """Fill in the template of a prior."""
    binding = folder.config["vqtok"]
    books, names = binding.get("num_codebooks", 1), binding.get("label_names") or []
    grid = [*binding["grid"], *([books] if books > 1 else [])]
    kind = ARCHITECTURES.get(folder.config["model_type"], str(folder.config["model_type"]))
    facts = {
        "architecture": kind,
        "grid": f"{' x '.join(map(str, grid))}, {math.prod(grid)} codes per image",
        "codes": f"{binding['codebook_size']} per codebook",
        "classes": f"{len(names)}: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}" if names else "none",
    }
    summary = (
        f"A {kind} over grids of {' x '.join(map(str, grid))} codes: it draws new grids"
        f"{' of a class' if names else ''}, and the tokenizer that made the codes decodes them."
    )
    return fill(
        "prior.md",
        metadata(folder, run_metadata, repository, "unconditional-image-generation"),
        name=short_name(repository),
        summary=summary,
        facts=rows(facts),
        repository=repository,
        tokenizer=hub_id(binding.get("tokenizer")) or "THE-TOKENIZER-OF-ITS-CODES",
        labels=", labels=[0]" if names else "",
        fingerprint=binding["fingerprint"][:12],
        metrics=metrics_section(run_metadata),
        image=image_section(run_metadata, "Samples", IMAGES["prior"], "Drawn from the prior"),
        recipe=recipe_section(run_metadata),
    )


def fill(template: str, data: ModelCardData, **values: str) -> str:
    text = files("vqtok.hub").joinpath("templates", template).read_text(encoding="utf-8")
    return f"---\n{data.to_yaml()}\n---\n{Template(text).substitute(mark=MARK, **values)}"


def metadata(folder: ModelFolder, run_metadata: RunMetadata, repository: str, task: str) -> ModelCardData:
    """What the Hub searches and sorts by. A licence is for the owner to choose: none is claimed."""
    measured = run_metadata.metrics or {}
    name, split = measured.get("dataset"), measured.get("split")
    measured_on = hub_id(measured.get("dataset_resolved", name))
    results = [
        EvalResult(
            task_type=task,
            dataset_type=measured_on or "custom",
            dataset_name=Path(str(name)).name,
            dataset_split=str(split),
            dataset_revision=measured.get("dataset_revision") if measured_on else None,
            metric_type=key,
            metric_value=value,
        )
        for key, value in shown(measured).items()
        if name and split
    ]
    trained_on = hub_id((run_metadata.recipe or {}).get("dataset"))
    return ModelCardData(
        library_name="vqtok",
        pipeline_tag=task,
        tags=["vqtok", "vq-vae", "image-tokenizer" if folder.kind == "tokenizer" else "image-generation"],
        datasets=[trained_on] if trained_on else None,
        model_name=short_name(repository),
        eval_results=results or None,
    )


def metrics_section(run_metadata: RunMetadata) -> str:
    """A table of what was measured, and on what."""
    if run_metadata.metrics:
        measured = run_metadata.metrics
        notes = "".join(f"\n\n{note[:1].upper()}{note[1:]}." for note in measured.get("notes", []))
        return f"{images_of(measured)}:\n\n{metric_rows(measured)}{notes}"
    if run_metadata.held_out:
        recipe, step = run_metadata.recipe or {}, run_metadata.held_out["step"]
        data = f"what was held out of `{recipe.get('dataset') or recipe.get('codes')}`" if recipe else "held-out data"
        return f"Measured while training, at step {step}, on {data}:\n\n{metric_rows(run_metadata.held_out)}"
    return "No metrics are stored with these weights. `vqtok evaluate` measures them and stores them here."


def images_of(measured: Mapping[str, Any]) -> str:
    """How many images of which split of what an evaluation looked at."""
    name = measured.get("dataset_resolved", measured.get("dataset"))
    split = f"`{hub_id(name) or Path(str(name)).name}`, split `{measured.get('split')}`"
    count, whole = measured.get("num_images"), measured.get("num_images_in_split")
    if count is None:
        return f"On {split}"
    if whole in (None, count):
        return f"On {count:,} images of {split}"
    return f"On the first {count:,} of {whole:,} images of {split}"


def metric_rows(values: Mapping[str, Any]) -> str:
    lines = [f"| {name} | {value:.5g} | {MEANINGS[name]} |" for name, value in shown(values).items()]
    return "\n".join(["| metric | value | meaning |", "|---|---|---|", *lines])


def shown(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: values[name] for name in MEANINGS if isinstance(values.get(name), int | float)}


def image_section(run_metadata: RunMetadata, title: str, name: str, caption: str) -> str:
    if run_metadata.image is None:
        return ""
    when = "" if run_metadata.step is None else f", at step {run_metadata.step}"
    return f"\n## {title}\n\n{caption}{when}.\n\n![{caption}]({name})\n"


def recipe_section(run_metadata: RunMetadata) -> str:
    if run_metadata.recipe is None:
        return "No record of the training run is stored with these weights."
    recipe = yaml.safe_dump(dict(run_metadata.recipe), sort_keys=False).rstrip()
    return f"<details>\n<summary>config.yaml of the run</summary>\n\n```yaml\n{recipe}\n```\n\n</details>"


def rows(facts: Mapping[str, str]) -> str:
    return "\n".join(f"| {name} | {value.replace('|', '&#124;')} |" for name, value in facts.items())


def options(section: Mapping[str, Any], without: tuple[str, ...] = ()) -> str:
    """`ema`, beta 0.25, ...; a section in it in parentheses."""
    given = [
        f"{name} ({options(value)})" if isinstance(value, Mapping) else f"{name} {value}"
        for name, value in section.items()
        if name not in ("type", *without)
    ]
    return ", ".join([f"`{section['type']}`", *given])


def short_name(repository: str) -> str:
    """owner/name without the owner; of runs/cifar10/model the name of the run."""
    path = Path(repository)
    return path.parent.name if path.name == "model" and path.parent.name else path.name


def hub_id(name: object) -> str | None:
    """owner/name of a repository on the Hub, where the name stands for one and not for a folder of this machine."""
    from vqtok.data.readers import KNOWN  # brings in datasets, which a model that is only loaded never needs

    text = KNOWN.get(str(name), str(name)).partition("@")[0]
    known = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text) and not Path(text).exists()
    return text if known else None
