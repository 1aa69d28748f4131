"""What the run beside a tokenizer says of how it was trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqtok.training import TokenizerTrainingConfig

__all__ = ["data_settings", "run_config"]


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

    Raises:
        ConfigurationError: no dataset is named, and no run beside the tokenizer names one.
    """
    from vqtok.errors import ConfigurationError

    run = run_config(tokenizer)
    if dataset is None and run is None:
        raise ConfigurationError(f"no run beside {tokenizer} says what it was trained on: name images with --dataset")
    if run is None or dataset not in (None, run.dataset):
        return {"dataset": dataset}
    names = ("dataset", "revision", "image_column", "label_column", "test_share", "seed")
    return {name: getattr(run, name) for name in names} | {"config": run.dataset_config}
