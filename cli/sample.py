"""vqtok sample: a prior -> images that were never there."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqtok_cli.parameters import BatchSize, Device, Seed

if TYPE_CHECKING:
    from PIL import Image

    from vqtok.priors import Prior, PriorBinding
    from vqtok.tokenizer import VQTokenizer

__all__ = ["sample"]

MOST = 10_000  # images on one image grid
SHOWN = 64  # pixels a side that a small image is enlarged to on the image grid


def sample(
    prior: Annotated[
        str | None,
        typer.Option(
            help="Prior to sample from: its folder, a run folder or a Hub id.",
            show_default="the newest finished run in runs/",
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a prior on the Hub.")] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="Tokenizer to decode with: its folder, a run folder or a Hub id.",
            show_default="the one the prior was trained with",
        ),
    ] = None,
    tokenizer_revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a tokenizer on the Hub.")
    ] = None,
    num_images: Annotated[int, typer.Option(help="Number of images, at most 10,000.")] = 64,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<str>",
            help="Class to sample, by name or number. May be repeated.",
            show_default="all classes in turn",
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="Divides the logits: below 1 for more probable images, above 1 for more diverse ones.")
    ] = 1.0,
    top_k: Annotated[int, typer.Option(help="Sample from the k most probable codes only; 0 for all.")] = 0,
    top_p: Annotated[
        float, typer.Option(help="Sample from the most probable codes that together reach this probability only.")
    ] = 1.0,
    guidance_scale: Annotated[
        float, typer.Option(help="Classifier-free guidance: above 1 follows the class more closely.")
    ] = 1.0,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="Image grid to write, a PNG file.")] = Path("samples.png"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file at --out.")] = False,
) -> None:
    """Sample new images from a prior.

    The images are decoded by the tokenizer and written as one image grid, a square. If the prior knows classes, --label
    is not given and there is an image for each class, every class has a row of its own.
    """
    from vqtok.errors import ConfigurationError
    from vqtok.files import check_file
    from vqtok.priors import generate
    from vqtok.text import counted
    from vqtok.training.runs import newest_model
    from vqtok_cli.output import done, resolved

    if out.suffix.lower() != ".png":
        raise ConfigurationError(f"--out must end in .png, got {out}")
    check_file(out, overwrite=overwrite)
    if not 1 <= num_images <= MOST:
        raise ConfigurationError(
            f"--num-images must be from 1 to {MOST:,}, as many as one image grid holds, got {num_images:,}; for more "
            "call vqtok.generate"
        )
    source = str(newest_model("prior")) if prior is None else prior
    loaded_prior, binding, loaded = load(source, revision, tokenizer, tokenizer_revision, device=device)
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


def load(
    source: str, revision: str | None, tokenizer: str | None, tokenizer_revision: str | None, *, device: str | None
) -> tuple[Prior, PriorBinding, VQTokenizer]:
    """A prior, what binds it, and the tokenizer of its codes, by default the one that it names, on one device."""
    import torch

    from vqtok.errors import ConfigurationError
    from vqtok.priors import PriorBinding, load_prior
    from vqtok_cli.tokenizers import check_revision, load_tokenizer

    check_revision(source, revision)
    prior = load_prior(source, revision)
    binding = PriorBinding.from_config(prior.config)
    tokenizer_source = binding.tokenizer if tokenizer is None else tokenizer
    if tokenizer_source is None:
        raise ConfigurationError(f"the prior {source} does not say where its tokenizer is: name it with --tokenizer")
    if tokenizer_revision is None and tokenizer_source == binding.tokenizer:
        tokenizer_revision = binding.revision
    loaded = load_tokenizer(tokenizer_source, device=device, revision=tokenizer_revision)
    binding.check_tokenizer(loaded.fingerprint)
    torch.nn.Module.to(prior, loaded.device)
    return prior, binding, loaded


def write_grid(images: list[Image.Image], rows: list[int], out: Path, *, overwrite: bool) -> None:
    """The images on one image grid, so many in each row."""
    from vqtok.data import image_grid
    from vqtok.files import new_file

    grid = image_grid(fill_rows(images, rows), columns=max(rows), gap=4, scale=max(1, SHOWN // max(images[0].size)))
    with new_file(out, overwrite=overwrite) as partial:
        grid.save(partial)


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


def fill_rows(images: list[Image.Image], rows: list[int]) -> list[Image.Image]:
    """The images row by row, with blank ones where a row is shorter than the longest."""
    from PIL import Image

    blank = Image.new(images[0].mode, images[0].size, "white")
    left = iter(images)
    return [image for count in rows for image in [*islice(left, count), *[blank] * (max(rows) - count)]]


def classes_shown(binding: PriorBinding, labels: list[int] | None) -> str:
    """The classes on the image grid, for people."""
    if labels is None:
        return "no class"
    names = [(binding.label_names or ())[number] for number in dict.fromkeys(labels)]
    return ", ".join(names) if len(names) <= 12 else f"{len(names)} classes"
