"""vqtok tokenize: images -> a codes folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vqtok_cli.parameters import (
    BatchSize,
    Dataset,
    DatasetConfig,
    Device,
    ImageColumn,
    Overwrite,
    Split,
    TokenizerName,
    TokenizerRevision,
)

__all__ = ["tokenize"]

LISTED = 20  # broken images that are named on the screen; the folder's codes.json names all


def tokenize(
    dataset: Dataset,
    out: Annotated[Path, typer.Option(help="Codes folder to write.")] = Path("codes"),
    tokenizer: TokenizerName = None,
    revision: TokenizerRevision = None,
    split: Split = None,
    dataset_config: DatasetConfig = None,
    image_column: ImageColumn = None,
    batch_size: BatchSize = 64,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Encode images as a codes folder.

    The codes folder is an Arrow dataset that datasets reads, with a column of codes next to the columns of the source,
    such as labels.
    """
    from vqtok.codes import SIDECAR, file_columns, own_files, read_broken, tokenize_sources
    from vqtok.data import open_all
    from vqtok.folders import check_free
    from vqtok.text import counted
    from vqtok_cli.output import done, note, resolved
    from vqtok_cli.tokenizers import load_tokenizer

    check_free(out, marker=SIDECAR, ours=own_files, overwrite=overwrite)
    model = load_tokenizer(tokenizer, device=device, revision=revision)
    sources = open_all(dataset, split=split, image_column=image_column, config=dataset_config)
    height, width = model.grid
    resolved(
        "tokenize",
        {
            "dataset": next(iter(sources.values())).resolved,
            "images": ", ".join(f"{len(source):,} {name}" for name, source in sources.items()),
            "image_column": next(iter(sources.values())).image_column,
            "tokenizer": f"{model.repository} ({model.fingerprint[:12]})",
            "revision": model.revision,
            "grid": f"{height} x {width} of {model.codebook_size:,} codes",
            "batch_size": batch_size,
            "device": model.device,
            "out": out,
        },
    )
    for line in dict.fromkeys(line for source in sources.values() for line in source.notes):
        note(line)
    if columns := file_columns(sources):
        note(f"columns that hold files are left out of the codes folder: {', '.join(columns)}")

    tokenize_sources(sources, model, out, batch_size=batch_size, overwrite=overwrite)
    total = sum(len(source) for source in sources.values())
    broken = read_broken(out)
    if broken:
        more = f" and {len(broken) - LISTED:,} more" if len(broken) > LISTED else ""
        note(
            f"{len(broken):,} of {counted(total, 'image')} could not be read and are left out: "
            f"{', '.join(broken[:LISTED])}{more}; {out / SIDECAR} lists them"
        )
    done(
        f"codes of {counted(total - len(broken), 'image')} written to {out}",
        next=("vqtok", "train-prior", out, "--out", "runs/prior"),
    )
