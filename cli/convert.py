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
OURS = (
    r"config\.json|preprocessor_config\.json|README\.md|model(-\d{5}-of-\d{5})?\.safetensors"
    r"|model\.safetensors\.index\.json"
)
NOTHING = r"(?!)"
NAMED = 5  # dropped tensors that are named on the screen


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="Checkpoint: a file, a folder of one, or owner/name on the Hub, with the file or folder in it as in "
            "owner/name/vq_ds16_c2i.pt."
        ),
    ],
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
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn a published checkpoint into a tokenizer.

    It gives the same codes. No code of the checkpoint is run: pickles are read for their tensors alone. Every
    tensor is used, or named among those that no code and no image needs.
    """
    from safetensors import SafetensorError

    from vqtok.convert import convert as convert_checkpoint
    from vqtok.errors import CheckpointError, one_line
    from vqtok.folders import check_free, new_folder
    from vqtok.hub import card_of, open_folder
    from vqtok.text import counted
    from vqtok_cli.output import done, note, resolved, say

    check_free(out, marker=MARKER, ours=own_files, overwrite=overwrite)
    found = convert_checkpoint(source, family=family, image_size=image_size, revision=revision)
    resolved("convert", facts(found, source, out))
    for line in found.provenance.notes:
        note(line)
    if found.dropped:
        more = f" and {len(found.dropped) - NAMED:,} more" if len(found.dropped) > NAMED else ""
        dropped = counted(len(found.dropped), "tensor")
        note(f"{dropped} left out, which no code and no image needs: {', '.join(found.dropped[:NAMED])}{more}")
    if not found.provenance.may_share:
        say(f"warning: the weights are under the {found.provenance.terms}", err=True)
    with new_folder(out, marker=MARKER, ours=own_files, overwrite=overwrite) as folder:
        try:
            found.tokenizer.save_pretrained(folder)
        except SafetensorError as error:  # safetensors has its own error for a full disk
            raise CheckpointError(f"{out} was not written: {one_line(error)}") from error
        (folder / CARD).write_text(card_of(open_folder(folder), str(out), folder).text, encoding="utf-8")
    done(f"tokenizer written to {out}", next=("vqtok", "tokenize", "IMAGES", "--tokenizer", str(out)))


def own_files(folder: Path) -> str:
    """Files that may be replaced, as a regular expression: those of a tokenizer, and of no other program's model."""
    from vqtok.errors import CheckpointError
    from vqtok.hub import kind_of, read_settings

    try:
        kind_of(read_settings(folder), name=str(folder), wanted="tokenizer")
    except CheckpointError:
        return NOTHING
    return OURS


def facts(found: Converted, source: str, out: Path) -> dict[str, object]:
    """What is known of it, for the screen."""
    (height, width), origin = found.tokenizer.grid, found.provenance
    size = " x ".join(map(str, found.tokenizer.config.size))
    return {
        "checkpoint": source,
        "family": f"{found.family} ({origin.program})",
        "of the shape of": origin.published,
        "images": f"{size} pixels, {found.tokenizer.config.resample}",
        "grid": f"{height} x {width} of {found.tokenizer.codebook_size:,} codes",
        "fingerprint": found.tokenizer.fingerprint[:12],
        "license": f"code {origin.code_license}, weights {origin.weights_license}",
        "out": out,
    }
