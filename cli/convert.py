"""vqtok convert: a published checkpoint -> a tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqtok_cli.parameters import Overwrite

if TYPE_CHECKING:
    from vqtok.convert import Converted

__all__ = ["FAMILIES", "convert"]

FAMILIES = "chameleon, cosmos, diffusers, ibq, janus, janus-transformers, llamagen, magvit2, maskgit, taming"
"""Names of `vqtok.convert.FAMILIES`, which the help says without loading torch."""

MARKER, CARD = "config.json", "README.md"
OURS = r"config\.json|preprocessor_config\.json|README\.md|model.*\.safetensors|model\.safetensors\.index\.json"
NAMED = 5  # dropped tensors that are named on the screen


def convert(
    source: Annotated[Path, typer.Argument(help="Checkpoint: a file, or a folder of one.")],
    out: Annotated[Path, typer.Option(help="Tokenizer folder to write.")],
    family: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="<family>",
            help=f"Program that it is of: {FAMILIES}.",
            show_default="known by the names of its tensors",
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Side in pixels that images are brought to.", show_default="that of the published tokenizer"
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn a published checkpoint into a tokenizer.

    It gives the same codes. No code of the checkpoint is run: pickles are read for their tensors alone. Every
    tensor is used, or named among those that only training needs.
    """
    from vqtok.convert import card_of
    from vqtok.convert import convert as convert_checkpoint
    from vqtok.folders import check_free, new_folder
    from vqtok.text import counted
    from vqtok_cli.output import done, note, resolved

    check_free(out, marker=MARKER, ours=lambda _: OURS, overwrite=overwrite)
    found = convert_checkpoint(source, family=family, image_size=image_size)
    resolved("convert", facts(found, source, out))
    for line in found.notes:
        note(line)
    if found.dropped:
        more = f" and {len(found.dropped) - NAMED:,} more" if len(found.dropped) > NAMED else ""
        dropped = counted(len(found.dropped), "tensor")
        note(f"{dropped} left out, which only training needs: {', '.join(found.dropped[:NAMED])}{more}")
    if not found.family.may_share:
        note(f"its weights are under the {found.family.weights_license}: do not push them")
    with new_folder(out, marker=MARKER, ours=lambda _: OURS, overwrite=overwrite) as folder:
        found.tokenizer.save_pretrained(folder)
        (folder / CARD).write_text(card_of(found, folder, out.resolve().name), encoding="utf-8")
    done(f"tokenizer written to {out}", next=("vqtok", "tokenize", "IMAGES", "--tokenizer", str(out)))


def facts(found: Converted, source: Path, out: Path) -> dict[str, object]:
    """What is known of it, for the screen."""
    height, width = found.tokenizer.grid
    size = " x ".join(map(str, found.tokenizer.config.size))
    return {
        "checkpoint": source,
        "family": f"{found.name} ({found.family.title})",
        "published": f"{found.published.name}, rFID {found.published.rfid}" if found.published else None,
        "images": f"{size} pixels, {found.family.resample}",
        "grid": f"{height} x {width} of {found.tokenizer.codebook_size:,} codes",
        "fingerprint": found.tokenizer.fingerprint[:12],
        "license": f"code {found.family.code_license}, weights {found.family.weights_license}",
        "out": out,
    }
