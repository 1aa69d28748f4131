"""vqtok inspect: what a folder holds; `codebook.py` says how healthy the codebook of a tokenizer is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vqtok_cli.parameters import (
    DATASETS,
    IMAGES_PER_BATCH,
    AsJson,
    DatasetConfig,
    Device,
    ImageColumn,
    checked_batch_size,
)

if TYPE_CHECKING:
    from vqtok.report import Summary

__all__ = ["inspect"]

# How a codebook is checked on images where nothing else is said.
DEFAULTS: dict[str, Any] = {"split": "test", "num_images": 2000, "batch_size": 128, "device": None}


def inspect(
    path: Annotated[
        str,
        typer.Argument(
            help="Tokenizer, prior, baseline, codes or run folder, parquet file of codes, or Hub id of any."
        ),
    ],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help=f"Check the codebook of a tokenizer on these images: {DATASETS}.")
    ] = None,
    dataset_config: DatasetConfig = None,
    image_column: ImageColumn = None,
    split: Annotated[
        str | None, typer.Option(help="With --dataset: split to read.", show_default=DEFAULTS["split"])
    ] = None,
    num_images: Annotated[
        int | None,
        typer.Option(
            help="With --dataset: number of images to use, chosen at random once and for all.",
            show_default=str(DEFAULTS["num_images"]),
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="With --dataset: folder to write the plots to, missing, empty or of earlier plots.",
            show_default="health in the run folder, else ./health",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help=f"With --dataset: {IMAGES_PER_BATCH[:1].lower()}{IMAGES_PER_BATCH[1:]}",
            show_default=str(DEFAULTS["batch_size"]),
            callback=checked_batch_size,
        ),
    ] = None,
    device: Device = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Recompute the checksums of codes, and name every file that is wrong.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Describe a tokenizer, prior, baseline, codes or run.

    With --dataset, also check the codebook of a tokenizer on held-out images: whether it is healthy and what to try if
    it is not, with plots of how often and where codes are used, how far apart they are, and the image patches they
    stand for. With --verify, read all codes again and compare their checksums with those of the day they were made.
    """
    from vqtok.errors import ConfigurationError
    from vqtok_cli.checksums import verify_files
    from vqtok_cli.tokenizers import check_revision

    given: dict[str, Any] = {"split": split, "num_images": num_images, "batch_size": batch_size, "device": device}
    if dataset is None:
        refuse_unused(given | {"dataset_config": dataset_config, "image_column": image_column, "out": out})
    check_revision(path, revision)
    if verify:
        if dataset is not None:
            raise ConfigurationError("--verify is for codes, and --dataset for a tokenizer: choose one")
        verify_files(path, as_json=as_json)
        return
    folder, summary = look_at(path, revision)
    found: dict[str, Any] = {"path": path, "kind": summary.kind, "facts": facts(summary)}
    if dataset is None:
        print_facts(path, summary, quiet=as_json)
    else:
        from vqtok_cli.codebook import check_tokenizer, measure, report

        check_tokenizer(folder, path, summary.kind)
        chosen = DEFAULTS | {name: value for name, value in given.items() if value is not None}
        columns = {"config": dataset_config, "image_column": image_column}
        data = {name: value for name, value in columns.items() if value is not None}
        model, health, drawn = measure(path, revision, dataset, data, out, quiet=as_json, **chosen)
        print_facts(path, summary, quiet=as_json)
        found["health"] = report(health, model, drawn, quiet=as_json)
    if as_json:
        typer.echo(json.dumps(defined(found), allow_nan=False))


def look_at(path: str, revision: str | None) -> tuple[Path, Summary]:
    """Describe what a name stands for, and say where it lies; on the Hub a model comes before a dataset of its name."""
    from vqtok.errors import HubError
    from vqtok.hub import fetch
    from vqtok.names import at_revision, hub_name
    from vqtok.report import describe, describe_codes
    from vqtok.store import is_url

    if is_url(path):
        return Path(path), describe_codes(path)
    found = hub_name(path)
    if found is None:
        return Path(path), describe(path)
    repository, named = found
    try:
        folder = fetch(repository, revision=revision or named)
    except HubError as no_model:
        try:
            return Path(path), describe_codes(at_revision(repository, revision or named))
        except HubError:
            raise no_model from None
    return folder, describe(folder, name=path)


def defined(value: Any) -> Any:
    """A value with null for numbers that JSON has not, as for those that are not defined."""
    if isinstance(value, dict):
        return {name: defined(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [defined(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def refuse_unused(given: Mapping[str, object]) -> None:
    """Refuse options that only say how to check a codebook on images, where no images are named."""
    from vqtok.errors import ConfigurationError

    if unused := [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]:
        raise ConfigurationError(
            f"{', '.join(unused)} {'are' if len(unused) > 1 else 'is'} for the check of a codebook on images: "
            "name the images with --dataset"
        )


def facts(summary: Summary) -> dict[str, Any]:
    """Names and values; a name that comes more than once, such as warnings, has a list."""
    values: dict[str, Any] = {}
    for name, value in summary.rows:
        before = values.get(name)
        values[name] = value if before is None else [*(before if isinstance(before, list) else [before]), value]
    return values


def print_facts(path: str, summary: Summary, *, quiet: bool) -> None:
    """One aligned line a fact."""
    from vqtok_cli.output import say

    if quiet:
        return
    say(f"{path}: {summary.kind}")
    width = max(len(name) for name, _ in summary.rows)
    for name, value in summary.rows:
        say(f"  {name:<{width}}  {value}")
