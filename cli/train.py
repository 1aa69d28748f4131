"""vqtok train: images -> a tokenizer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqtok.hub import check_can_push
from vqtok.names import at_revision
from vqtok.training import TokenizerTrainingConfig, open_training_images, train_tokenizer
from vqtok_cli.described import grouped, options_from
from vqtok_cli.output import done, note, resolved
from vqtok_cli.parameters import Assignments, ConfigFile, OverwriteRun, PushToHub, Resume
from vqtok_cli.tokenizers import tokenize_with
from vqtok_cli.training import check_out, finished_model, push_finished, settings_for

__all__ = ["train"]

OPTIONS = {
    "Data": ("dataset", "dataset_config", "image_column", "label_column", "image_size", "num_channels"),
    "Tokenizer": (
        *("quantizer", "quantizer.codebook_size", "quantizer.code_dim"),
        *("network", "network.downsample_factor", "network.hidden_size"),
        "likelihood",
        *("init_from", "freeze"),
    ),
    "Training": ("steps", "batch_size", "learning_rate", "precision", "seed", "tracker", "out"),
}
"""Settings with an option of their own, by the heading of the help that they stand under."""


EPILOG = (
    "These are the settings most often changed. To list all of them, with what each may be and its default, run "
    "vqtok settings train for those of the run, vqtok settings ema for those of a quantizer, and vqtok settings conv "
    "for those of the network. Pass any of them as in --set quantizer.beta=0.5."
)


@options_from(TokenizerTrainingConfig, OPTIONS, defaults={"out": "runs/<dataset>"})
def train(
    given: Mapping[str, Any],
    config: ConfigFile = None,
    set_: Assignments = None,
    resume: Resume = False,
    overwrite: OverwriteRun = False,
    push_to_hub: PushToHub = None,
) -> None:
    """Train a tokenizer on images.

    The tokenizer is written to OUT/model, next to the settings, the metrics and the checkpoints of the run. Options
    given here replace settings from --config, and --set replaces both.
    """
    settings = settings_for(TokenizerTrainingConfig, given=given, file=config, assignments=set_, out="", resume=resume)
    if not settings.out:
        settings = settings.model_copy(update={"out": default_run(settings.dataset)})
    check_out(settings.out, resume=resume, overwrite=overwrite)
    if push_to_hub:
        check_can_push(push_to_hub)
    settings, train_images, test_images = open_training_images(settings)
    counts = {"images": f"{len(train_images):,} for training, {len(test_images):,} held out"}
    resolved("train", grouped(settings, counts, OPTIONS))
    for line in train_images.notes:
        note(line)

    result = train_tokenizer(settings, train_images, test_images, resume=resume, overwrite=overwrite)
    model = finished_model("train", result, settings.out)
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
    done(
        f"tokenizer written to {model} (held-out: {numbers})",
        warnings=result.warnings,
        next=tokenize_with(
            model,
            at_revision(settings.dataset, settings.revision),
            config=settings.dataset_config,
            image_column=settings.image_column,
        ),
    )
    if push_to_hub:
        push_finished(model, push_to_hub)


def default_run(dataset: str) -> str:
    """runs/cifar10 for cifar10, runs/images for ./images, runs/mnist for org/mnist, runs/digits for digits.parquet."""
    path = Path(os.path.abspath(dataset))
    return f"runs/{path.stem if path.is_file() else path.name}"
