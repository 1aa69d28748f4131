"""What the run beside a tokenizer says of how it was trained."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqtok.data import ImageSource
    from vqtok.training import TokenizerTrainingConfig

__all__ = ["data_settings", "noting_changes", "run_config"]


def run_config(tokenizer: Path) -> TokenizerTrainingConfig | None:
    """The configuration of the run that a tokenizer folder is the `model/` of."""
    from vqtok.hub import run_of
    from vqtok.training import TokenizerTrainingConfig
    from vqtok.training.resolution import load_config

    run = run_of(tokenizer) if tokenizer.is_dir() else None
    return load_config(TokenizerTrainingConfig, run / "config.yaml") if run else None


def data_settings(tokenizer: Path, dataset: str | None) -> dict[str, Any]:
    """What `open_images` is to be told: the dataset, and how the run of the tokenizer read it where that is the one.

    Images that a run held out by its own seed and share must be the ones measured on, for the rest it was trained on.
    The dataset may be named in another way than in the run: by another path, a short name, with its revision.

    Where the images of the run are no longer where they were, a named folder or file is taken to be them, with their
    columns, or others like them, and images are held out as the run did.

    Raises:
        ConfigurationError: no dataset is named, and no run beside the tokenizer names one that is still there.
    """
    from vqtok.errors import ConfigurationError
    from vqtok.names import findable, is_gone, meaning

    run = run_config(tokenizer)
    if dataset is None and run is None:
        raise ConfigurationError(f"no run beside {tokenizer} says what it was trained on: name images with --dataset")
    if run is None:
        return {"dataset": dataset}
    names = ("image_column", "label_column", "test_share", "seed")
    settings = {name: getattr(run, name) for name in names} | {"config": run.dataset_config}
    if is_gone(run.dataset):
        if dataset is None:
            raise ConfigurationError(
                f"the images that {tokenizer} was trained on, {run.dataset}, are no longer there: name them with "
                "--dataset"
            )
        if not os.path.isabs(findable(dataset)):  # on the Hub or in the package, so they cannot be what was here
            return {"dataset": dataset, "test_share": run.test_share, "seed": run.seed}
        return settings | {"dataset": dataset}
    (trained_on, trained_at), (named, at) = meaning(run.dataset), meaning(dataset or run.dataset)
    if named != trained_on:
        return {"dataset": dataset}
    if dataset is None:
        return settings | {"dataset": run.dataset, "revision": run.revision}
    without_revision = dataset.partition("@")[0] if at else dataset
    return settings | {"dataset": without_revision, "revision": at or run.revision or trained_at}


def noting_changes(source: ImageSource, tokenizer: Path, settings: Mapping[str, Any]) -> ImageSource:
    """Images that are held out as the run of a tokenizer did, with a note where they are others by now.

    Seed and share then choose others than they did for the run.

    Args:
        source: what `open_images` gave of the settings; as it is where it is no share of a split.
        tokenizer: its folder.
        settings: what `data_settings` gave.

    Raises:
        CheckpointError: the run has a damaged record.
        DataError: the names of the images cannot be read.
    """
    from dataclasses import replace

    from vqtok.hub import read_images_record, run_of

    run = run_of(tokenizer) if tokenizer.is_dir() else None
    is_share = source.undivided is not None and source.split != source.undivided.split
    if run is None or not is_share or "label_column" not in settings:
        return source
    record = read_images_record(run)
    change = record.change(source.record()) if record else None
    if change is None:
        return source
    note = f"{change} since the tokenizer was trained, so it may have been trained on some of those held out here"
    return replace(source, notes=(*source.notes, note))
