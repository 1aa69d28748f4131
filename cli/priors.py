"""What commands that sample from a prior share: their options, how they load it with its tokenizer, what they write."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from PIL import Image

    from vqtok.priors import Prior, PriorBinding
    from vqtok.tokenizer import VQTokenizer

__all__ = [
    "DecoderName",
    "DecoderRevision",
    "GuidanceScale",
    "OverwriteFile",
    "PriorName",
    "PriorRevision",
    "Temperature",
    "TopK",
    "TopP",
    "check_out",
    "load_with_tokenizer",
    "prior_source",
    "write_grid",
]

SHOWN = 64  # pixels a side that a small image is enlarged to on the image grid

PriorName = Annotated[
    str | None,
    typer.Option(
        "--prior",
        help="Prior to sample from: its folder, a run folder or a Hub id.",
        show_default="the newest finished run in runs/",
    ),
]
PriorRevision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a prior on the Hub.")]
DecoderName = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        help="Tokenizer to decode with: its folder, a run folder or a Hub id.",
        show_default="the one the prior was trained with",
    ),
]
DecoderRevision = Annotated[
    str | None, typer.Option("--tokenizer-revision", help="Branch, tag or commit of a tokenizer on the Hub.")
]
Temperature = Annotated[
    float, typer.Option(help="Divides the logits: below 1 for more probable images, above 1 for more diverse ones.")
]
TopK = Annotated[int, typer.Option(help="Sample from the k most probable codes only; 0 for all.")]
TopP = Annotated[
    float, typer.Option(help="Sample from the most probable codes that together reach this probability only.")
]
GuidanceScale = Annotated[float, typer.Option(help="Classifier-free guidance: above 1 follows the class more closely.")]
OverwriteFile = Annotated[bool, typer.Option("--overwrite", help="Replace the file at --out.")]


def check_out(out: Path, *, overwrite: bool, sources: Iterable[Path] = ()) -> None:
    """Refuse a file that is no PNG, is there, or is one of those that are read, before any work."""
    from vqtok.errors import ConfigurationError
    from vqtok.files import check_file

    if out.suffix.lower() != ".png":
        raise ConfigurationError(f"--out must end in .png, got {out}")
    check_file(out, overwrite=overwrite, sources=sources)


def prior_source(prior: str | None) -> str:
    """Where the prior is: the one that was named, or that of the newest finished run."""
    from vqtok.training.runs import newest_model

    return str(newest_model("prior")) if prior is None else prior


def load_with_tokenizer(
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


def fill_rows(images: list[Image.Image], rows: list[int]) -> list[Image.Image]:
    """The images row by row, with blank ones where a row is shorter than the longest."""
    from PIL import Image

    blank = Image.new(images[0].mode, images[0].size, "white")
    left = iter(images)
    return [image for count in rows for image in [*islice(left, count), *[blank] * (max(rows) - count)]]
