"""vqtok compress: an image -> a file that gives back its very pixels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqtok_cli.parameters import CodesPrior, PriorRevision, TokenizerName, TokenizerRevision

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["compress"]


def compress(
    image: Annotated[
        Path, typer.Argument(help="Image of 8 bits, grey or RGB as the tokenizer reads them, of any size.")
    ],
    tokenizer: TokenizerName = None,
    prior: CodesPrior = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="beside the image, with the suffix .vqt")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file at --out.")] = False,
    revision: TokenizerRevision = None,
    prior_revision: PriorRevision = None,
) -> None:
    """Compress an image without loss of a pixel.

    It is the proof of bits per dimension: an arithmetic coder writes the codes of the image and then its pixels given
    these, in about as many bits as vqtok evaluate --bits-per-dim says. To decompress takes the same tokenizer and
    prior. Only the pixels are kept, no metadata.
    """
    from vqtok.files import check_file, new_file
    from vqtok.lossless import SUFFIX, LosslessCodec, as_image, exact_pixels
    from vqtok.text import counted
    from vqtok_cli.output import done, resolved
    from vqtok_cli.tokenizers import load_prior_of, load_tokenizer

    target = out or image.parent / f"{image.stem}{SUFFIX}"
    check_file(target, overwrite=overwrite, sources=[image])
    model = load_tokenizer(tokenizer, device="cpu", revision=revision)
    loaded = load_prior_of(model, prior, prior_revision)
    codec = LosslessCodec(model, loaded)
    pixels = exact_pixels(image, num_channels=codec.channels, name=str(image))
    resolved(
        "compress",
        {
            "image": f"{image}, {pixels.shape[1]} x {pixels.shape[0]} pixels",
            "tokenizer": f"{model.repository} ({model.fingerprint[:12]})",
            "revision": model.revision,
            "likelihood": model.config.likelihood["type"],
            "prior": loaded.name_or_path if loaded else "equally probable codes",
            "prior_revision": loaded.revision if loaded else None,
            "out": target,
        },
    )
    data = codec.compress(as_image(pixels), name=str(image))
    with new_file(target, overwrite=overwrite) as partial:
        partial.write_bytes(data)
    bits = 8 * len(data)
    done(
        f"{counted(bits, 'bit')}, {bits / pixels.size:.4f} bits per dimension, {counted(len(data), 'byte')} written to "
        f"{target}; as PNG these pixels take {counted(png_size(as_image(pixels)), 'byte')}",
        next=[
            *("vqtok", "decompress", target, "--tokenizer", model.repository),
            *(["--revision", model.revision] if model.revision else []),
            *(["--prior", prior] if prior else []),
            *(["--prior-revision", prior_revision] if prior_revision else []),
        ],
    )


def png_size(image: Image.Image) -> int:
    """Bytes of an image as PNG, as small as Pillow makes it."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.tell()
