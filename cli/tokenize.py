"""vqtok tokenize: images -> a codes folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import torch
import typer

from vqtok.codes import (
    OtherProcessError,
    Plan,
    TokenizeOptions,
    check_place,
    is_launched,
    launch_size,
    local_rank,
    tokenize_images,
)
from vqtok.store import Store
from vqtok.text import counted
from vqtok.tokenizer import VQTokenizer
from vqtok_cli.described import options_from
from vqtok_cli.output import done, is_first, note, resolved
from vqtok_cli.parameters import Dataset, Device, TokenizerName, TokenizerRevision
from vqtok_cli.tokenizers import load_tokenizer

__all__ = ["tokenize"]

LISTED = 20  # bad images that are named on the screen; bad_images.parquet names all

OPTIONS = {
    "Images": (
        *("split", "dataset_config", "image_column", "columns", "images", "views", "seed", "background", "streaming"),
        *("on_error", "max_bad_share"),
    ),
    "Codes": ("batch_size", "precision", "format", "shard_rows", "overwrite"),
    "Where it runs": ("executor", "num_processes", "ray_address"),
}
"""Options of tokenizing that are options here, by the heading of the help that they stand under.

The revision of a dataset is a part of its name here, and the device of actors is that of `--device`.
"""


@options_from(TokenizeOptions, OPTIONS)
def tokenize(
    dataset: Dataset,
    out: Annotated[
        str, typer.Option(help="Codes folder to write: a path, or an address such as s3://bucket/codes.")
    ] = "codes",
    tokenizer: TokenizerName = None,
    revision: TokenizerRevision = None,
    device: Device = None,
    *,
    given: Mapping[str, Any],
) -> None:
    """Encode images as a codes folder.

    The codes folder is an Arrow dataset that datasets reads, with a column of codes next to the labels and names of the
    images. Where the same command was stopped before, it goes on and makes what is missing; of codes that were made of
    other images or in another way it names the difference and leaves them as they are.
    """
    on_ray = given.get("executor") == "ray"
    options = TokenizeOptions(**given, ray_device=device if on_ray else None)
    if is_first():
        check_place(Store(out), overwrite=options.overwrite)
    model = load_tokenizer(tokenizer, device="cpu" if on_ray else own_device(device), revision=revision)
    try:
        made = tokenize_images(dataset, model, out, planned=announced(model, options, out), **options.model_dump())
    except OtherProcessError:
        raise typer.Exit(2) from None  # which has its line printed there
    total = sum(made.images.values())
    if made.bad:
        more = f" and {len(made.bad) - LISTED:,} more" if len(made.bad) > LISTED else ""
        named = ", ".join(image.name for image in made.bad[:LISTED])
        note(
            f"{len(made.bad):,} of {counted(total + len(made.bad), 'image')} could not be read and are left out: "
            f"{named}{more}; bad_images.parquet in {out} lists them"
        )
    if made.resumed:
        shards = f"{made.resumed:,} of {counted(made.resumed + made.made, 'shard')}"
        note(f"{shards} {'was' if made.resumed == 1 else 'were'} there already")
    done(
        f"codes of {counted(total, 'image')} {'written to' if made.made else 'are all there in'} {out}",
        next=("vqtok", "train-prior", out, "--out", "runs/prior"),
    )


def announced(model: VQTokenizer, options: TokenizeOptions, out: str) -> Callable[[Plan, Sequence[str]], None]:
    """What says what will be done, once the images are listed."""
    height, width = model.grid

    def show(plan: Plan, notes: Sequence[str]) -> None:
        views, number = plan.request.image_views, options.num_processes or launch_size()
        processes = f" of {number:,} processes" if number > 1 else ""
        resolved(
            "tokenize",
            {
                "dataset": plan.request.dataset,
                "images": ", ".join(f"{each.rows:,} {each.name}" for each in plan.splits),
                "columns": [*plan.splits[0].columns, *plan.splits[0].added] or None,
                "tokenizer": f"{model.repository} ({model.fingerprint[:12]})",
                "revision": model.revision,
                "views": options.views,
                "seed": plan.request.seed if views and views.kind == "random" else None,
                "background": plan.spec.preprocessing.get("background"),
                "grid": f"{height} x {width} of {model.codebook_size:,} codes",
                "batch_size": options.batch_size,
                "precision": options.precision,
                "shards": f"{plan.num_shards:,} of up to {counted(plan.request.shard_rows, 'row')}, {options.format}",
                "device": "of the Ray cluster" if options.executor == "ray" else f"{model.device}{processes}",
                "out": out,
            },
        )
        for line in notes:
            note(line)

    return show


def own_device(device: str | None) -> str | None:
    """Where this process has its tokenizer: launched processes have a GPU each."""
    if is_launched() and device in (None, "cuda") and torch.cuda.is_available():
        return f"cuda:{local_rank()}"
    return device
