"""vqtok sample: a prior -> images that were never there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqtok_cli.parameters import BatchSize, Device, Seed
from vqtok_cli.priors import (
    DecoderName,
    DecoderRevision,
    GuidanceScale,
    OverwriteFile,
    PriorName,
    PriorRevision,
    Temperature,
    TopK,
    TopP,
    check_out,
    load_with_tokenizer,
    prior_source,
    write_grid,
)

if TYPE_CHECKING:
    from vqtok.priors import PriorBinding

__all__ = ["sample"]

MOST = 10_000  # images on one image grid


def sample(
    prior: PriorName = None,
    revision: PriorRevision = None,
    tokenizer: DecoderName = None,
    tokenizer_revision: DecoderRevision = None,
    num_images: Annotated[int, typer.Option(help="Number of images, at most 10,000.")] = 64,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<str>",
            help="Class to sample, by name or number. May be repeated.",
            show_default="all classes in turn",
        ),
    ] = None,
    temperature: Temperature = 1.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    guidance_scale: GuidanceScale = 1.0,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="Image grid to write, a PNG file.")] = Path("samples.png"),
    overwrite: OverwriteFile = False,
) -> None:
    """Sample new images from a prior.

    The images are decoded by the tokenizer and written as one image grid, a square. If the prior knows classes, --label
    is not given and there is an image for each class, every class has a row of its own.
    """
    from vqtok.errors import ConfigurationError
    from vqtok.priors import generate
    from vqtok.text import counted
    from vqtok_cli.output import done, resolved

    check_out(out, overwrite=overwrite)
    if not 1 <= num_images <= MOST:
        raise ConfigurationError(
            f"--num-images must be from 1 to {MOST:,}, as many as one image grid holds, got {num_images:,}; for more "
            "call vqtok.generate"
        )
    source = prior_source(prior)
    loaded_prior, binding, loaded = load_with_tokenizer(source, revision, tokenizer, tokenizer_revision, device=device)
    labels, rows = lay_out(binding, label, num_images)
    resolved(
        "sample",
        {
            "prior": source,
            "revision": revision,
            "tokenizer": loaded.repository,
            "tokenizer_revision": loaded.revision,
            "images": f"{num_images:,} of {classes_shown(binding, labels)}",
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "guidance_scale": guidance_scale,
            "seed": seed,
            "out": out,
        },
    )
    images = generate(
        loaded_prior,
        loaded,
        num_images=num_images,
        labels=labels,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        guidance_scale=guidance_scale,
        seed=seed,
        batch_size=batch_size,
    )
    write_grid(images, rows, out, overwrite=overwrite)
    run = Path(source).parent if Path(source).name == "model" else Path(source)
    model = run / "model" if (run / "model").is_dir() else None
    done(f"{counted(num_images, 'image')} on {out}", next=("vqtok", "push", model, "ORG/NAME") if model else ())


def lay_out(binding: PriorBinding, given: list[str] | None, num_images: int) -> tuple[list[int] | None, list[int]]:
    """The classes that `num_images` images have in turn, or None for a prior without, and how many stand in each row.

    Where none are asked for and there is an image for each, every class has a row of its own; otherwise the rows make a
    square.
    """
    if not given and 0 < binding.num_classes <= num_images:
        least, more = divmod(num_images, binding.num_classes)
        rows = [least + (number < more) for number in range(binding.num_classes)]
        return [number for number, count in enumerate(rows) for _ in range(count)], rows
    columns = math.ceil(math.sqrt(num_images))
    rows = [min(columns, num_images - start) for start in range(0, num_images, columns)]
    classes = [binding.label_number(label) for label in given] if given else list(range(binding.num_classes))
    return classes[:num_images] or None, rows


def classes_shown(binding: PriorBinding, labels: list[int] | None) -> str:
    """The classes on the image grid, for people."""
    if labels is None:
        return "no class"
    names = [(binding.label_names or ())[number] for number in dict.fromkeys(labels)]
    return ", ".join(names) if len(names) <= 12 else f"{len(names)} classes"
