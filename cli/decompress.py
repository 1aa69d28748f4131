"""vqtok decompress: the pixels of an image back from what vqtok compress wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vqtok_cli.parameters import CodesPrior, PriorRevision, TokenizerName, TokenizerRevision

__all__ = ["decompress"]


def decompress(
    file: Annotated[Path, typer.Argument(help="File that vqtok compress wrote.")],
    tokenizer: TokenizerName = None,
    prior: CodesPrior = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Image to write, a PNG file.", show_default="beside the file, with the suffix .png"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file at --out.")] = False,
    revision: TokenizerRevision = None,
    prior_revision: PriorRevision = None,
) -> None:
    """Give back an image that vqtok compress compressed.

    Takes the tokenizer and the prior that it was compressed with. The pixels are checked: a damaged file, or a machine
    whose arithmetic differs, is an error and never a wrong image.
    """
    from vqtok.errors import ConfigurationError
    from vqtok.files import check_file, new_file
    from vqtok.lossless import LosslessCodec, read_compressed
    from vqtok.text import counted
    from vqtok_cli.output import done, resolved
    from vqtok_cli.tokenizers import load_prior_of, load_tokenizer

    target = out or file.parent / f"{file.stem}.png"
    if out is not None and out.suffix.lower() != ".png":
        raise ConfigurationError(f"--out must end in .png, got {out}")
    check_file(target, overwrite=overwrite, sources=[file])
    data = read_compressed(file)
    model = load_tokenizer(tokenizer, device="cpu", revision=revision)
    loaded = load_prior_of(model, prior, prior_revision)
    codec = LosslessCodec(model, loaded)
    resolved(
        "decompress",
        {
            "file": f"{file}, {counted(len(data), 'byte')}",
            "tokenizer": f"{model.repository} ({model.fingerprint[:12]})",
            "revision": model.revision,
            "prior": loaded.name_or_path if loaded else "equally probable codes",
            "prior_revision": loaded.revision if loaded else None,
            "out": target,
        },
    )
    image = codec.decompress(data, name=str(file))
    with new_file(target, overwrite=overwrite) as partial:
        image.save(partial)
    dimensions = image.width * image.height * codec.channels
    done(
        f"{image.width} x {image.height} pixels of {8 * len(data) / dimensions:.4f} bits per dimension written to "
        f"{target}, {counted(target.stat().st_size, 'byte')} as PNG; their checksum is that of the original"
    )
