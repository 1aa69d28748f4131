"""vqtok tokenize: images -> a codes folder."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import Annotated, Literal

import typer

from vqtok_cli.parameters import (
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

LISTED = 20  # bad images that are named on the screen; bad_images.parquet names all


def tokenize(
    dataset: Dataset,
    out: Annotated[
        str, typer.Option(help="Codes folder to write: a path, or an address such as s3://bucket/codes.")
    ] = "codes",
    tokenizer: TokenizerName = None,
    revision: TokenizerRevision = None,
    split: Split = None,
    dataset_config: DatasetConfig = None,
    image_column: ImageColumn = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Columns to keep beside the codes, separated by commas, or all; a name with a comma in quotes.",
            show_default="file names and labels; of metadata beside images all",
        ),
    ] = None,
    images: Annotated[
        bool, typer.Option("--images", help="Keep the encoded images themselves beside their codes.")
    ] = False,
    views: Annotated[
        str | None,
        typer.Option(
            help="Rows for several views of each image, which share its image_id: center (the image and its mirror "
            "image), ten-crop (corners and middle of a slightly larger image, and their mirror images) or random:K "
            "(K random crops, mirrored at random).",
            show_default="one row an image, as the tokenizer's own preprocessing gives it",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of --views random:K.", show_default="0")] = None,
    background: Annotated[
        str, typer.Option(help="Colour behind transparent images: a name, #rrggbb, or red,green,blue.")
    ] = "white",
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Read files of the Hub where they are, rather than download them.")
    ] = False,
    batch_size: Annotated[
        int, typer.Option(help="Images encoded at a time; of another number a few codes at near-ties may differ.")
    ] = 64,
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"],
        typer.Option(help="Arithmetic of the encoder; less than float32 changes some codes."),
    ] = "float32",
    format: Annotated[
        Literal["arrow", "parquet"], typer.Option(help="What the shards are; load_from_disk reads arrow alone.")
    ] = "arrow",
    shard_rows: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Rows of a shard, the file that is made whole or not at all, and until then is in memory.",
            show_default="65536; with --images 4096",
        ),
    ] = None,
    num_processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that work side by side, on a GPU each where there are several; with ray, actors.",
            show_default="1; with ray one for each GPU, or for each machine",
        ),
    ] = None,
    executor: Annotated[
        Literal["local", "ray"],
        typer.Option(help="Where they work: here, or on a Ray cluster whose machines all see --out and the images."),
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster: its address, or local for a new one on this machine.",
            show_default="auto: the one that this machine belongs to",
        ),
    ] = None,
    on_error: Annotated[
        Literal["skip", "stop"], typer.Option(help="What to do with an image that cannot be read.")
    ] = "skip",
    max_bad_share: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of images that may be left out; past it the status is 3.")
    ] = 0.05,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Encode images as a codes folder.

    The codes folder is an Arrow dataset that datasets reads, with a column of codes next to the labels and names of the
    images. Where the same command was stopped before, it goes on and makes what is missing; of codes that were made of
    other images or in another way it names the difference and leaves them as they are.
    """
    from vqtok.codes import OtherProcessError, Plan, check_place, tokenize_images
    from vqtok.store import Store
    from vqtok.text import counted
    from vqtok_cli.output import done, is_first, note, resolved
    from vqtok_cli.tokenizers import load_tokenizer

    if is_first():
        check_place(Store(out), overwrite=overwrite)
    model = load_tokenizer(tokenizer, device=own_device(device, executor), revision=revision)
    height, width = model.grid

    def show(plan: Plan, notes: Sequence[str]) -> None:
        resolved(
            "tokenize",
            {
                "dataset": plan.request.dataset,
                "images": ", ".join(f"{each.rows:,} {each.name}" for each in plan.splits),
                "columns": [*plan.splits[0].columns, *plan.splits[0].added] or None,
                "tokenizer": f"{model.repository} ({model.fingerprint[:12]})",
                "revision": model.revision,
                "views": views,
                "seed": plan.request.seed if views and views.startswith("random") else None,
                "background": plan.spec.preprocessing.get("background"),
                "grid": f"{height} x {width} of {model.codebook_size:,} codes",
                "batch_size": batch_size,
                "precision": precision,
                "shards": f"{plan.num_shards:,} of up to {counted(plan.request.shard_rows, 'row')}, {format}",
                "device": "of the Ray cluster" if executor == "ray" else f"{model.device}{of_processes(num_processes)}",
                "out": out,
            },
        )
        for line in notes:
            note(line)

    try:
        made = tokenize_images(
            dataset,
            model,
            out,
            split=split,
            dataset_config=dataset_config,
            image_column=image_column,
            columns=None if columns is None else column_names(columns),
            images=images,
            views=views,
            seed=seed,
            background=background,
            streaming=streaming,
            batch_size=batch_size,
            precision=precision,
            format=format,
            shard_rows=shard_rows,
            num_processes=num_processes,
            executor=executor,
            ray_address=ray_address,
            ray_device=device if executor == "ray" else None,
            on_error=on_error,
            max_bad_share=max_bad_share,
            overwrite=overwrite,
            planned=show,
        )
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


def column_names(text: str) -> list[str]:
    """Names between commas; a name in double quotes may hold commas itself."""
    from vqtok.errors import ConfigurationError

    try:
        return next(csv.reader([text], skipinitialspace=True), [])
    except csv.Error as error:  # a line break outside of quotes
        raise ConfigurationError(f"columns cannot be told apart ({error}): put names in double quotes") from None


def own_device(device: str | None, executor: str) -> str | None:
    """Where this process has its tokenizer: actors have devices of their own, and launched processes a GPU each."""
    import torch

    from vqtok.codes import is_launched, local_rank

    if executor == "ray":
        return "cpu"
    if is_launched() and device in (None, "cuda") and torch.cuda.is_available():
        return f"cuda:{local_rank()}"
    return device


def of_processes(given: int | None) -> str:
    """How many processes share the work, where there are several."""
    from vqtok.codes import launch_size

    number = given or launch_size()
    return f" of {number:,} processes" if number > 1 else ""
