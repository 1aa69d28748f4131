"""vqtok tokenize: images -> a codes folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["tokenize"]

LISTED = 20  # broken images that are named on the screen; the folder's codes.json names all


def tokenize(
    dataset: Annotated[
        str,
        typer.Argument(help="Folder of images, mnist-mini, mnist, cifar10, a Hub id, or files that datasets reads."),
    ],
    out: Annotated[Path, typer.Option(help="Codes folder to write.")] = Path("codes"),
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer folder or Hub id; by default the newest finished run below runs/.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="One split; by default every split there is.")] = None,
    dataset_config: Annotated[
        str | None, typer.Option(help="Which configuration of a dataset that has several.")
    ] = None,
    image_column: Annotated[str | None, typer.Option(help="Where the feature types do not decide.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images the tokenizer gets at once.")] = 64,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; by default cuda where there is one.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older codes folder at --out.")] = False,
) -> None:
    """Turn images into a dataset of code grids."""
    from vqtok.codes import SIDECAR, check_free, open_sources, read_broken, tokenize_sources
    from vqtok.training.runs import newest_model
    from vqtok_cli.output import done, note, resolved
    from vqtok_cli.tokenizers import load_tokenizer

    check_free(out, marker=SIDECAR, overwrite=overwrite)
    model = load_tokenizer(tokenizer or str(newest_model("tokenizer")), device=device)
    sources = open_sources(dataset, split=split, dataset_config=dataset_config, image_column=image_column)
    height, width = model.grid
    resolved(
        "tokenize",
        {
            "dataset": next(iter(sources.values())).resolved,
            "images": ", ".join(f"{len(source):,} {name}" for name, source in sources.items()),
            "image_column": next(iter(sources.values())).image_column,
            "tokenizer": f"{model.repository} ({model.fingerprint[:12]})",
            "grid": f"{height} x {width} of {model.codebook_size:,} codes",
            "batch_size": batch_size,
            "device": model.device,
            "out": out,
        },
    )
    for line in dict.fromkeys(line for source in sources.values() for line in source.notes):
        note(line)

    tokenize_sources(sources, model, out, batch_size=batch_size, overwrite=overwrite)
    total = sum(len(source) for source in sources.values())
    broken = read_broken(out)
    if broken:
        more = f" and {len(broken) - LISTED:,} more" if len(broken) > LISTED else ""
        note(
            f"{len(broken):,} of {total:,} images could not be read and are left out: "
            f"{', '.join(broken[:LISTED])}{more}; {out / SIDECAR} lists them"
        )
    done(f"codes of {total - len(broken):,} images written to {out}", next=f"vqtok train-prior {out} --out runs/prior")
