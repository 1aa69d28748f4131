"""vqtok train: images -> a tokenizer, or a model that it is compared with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vqtok.baselines import BASELINE_TYPES, BASELINES
from vqtok.errors import ConfigurationError, did_you_mean
from vqtok.hub import check_can_push
from vqtok.names import at_revision
from vqtok.training import (
    BaselineTrainingConfig,
    TokenizerTrainingConfig,
    open_training_images,
    train_baseline,
    train_tokenizer,
)
from vqtok.training.config import ImageTrainingConfig
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


TOKENIZER = "vq-vae"
MODELS = (TOKENIZER, *BASELINES)

EPILOG = (
    "These are the settings most often changed. To list all of them, with what each may be and its default, run "
    "vqtok settings train for those of the run, vqtok settings ema for those of a quantizer, vqtok settings conv "
    "for those of the network, and vqtok settings vae for those of another model. Pass any of them as in "
    "--set quantizer.beta=0.5."
)

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar=f"<{'|'.join(MODELS)}>",
        help=f"What to train: {TOKENIZER} is a tokenizer, the others are compared with it on the same networks. They "
        "are trained with the likelihood logistic, and into runs/<dataset>-<model>, unless told otherwise.",
        autocompletion=lambda: list(MODELS),
        show_default=TOKENIZER,
        rich_help_panel="Tokenizer",
    ),
]


@options_from(TokenizerTrainingConfig, OPTIONS, defaults={"out": "runs/<dataset>"})
def train(
    given: Mapping[str, Any],
    model: Model = None,
    config: ConfigFile = None,
    set_: Assignments = None,
    resume: Resume = False,
    overwrite: OverwriteRun = False,
    push_to_hub: PushToHub = None,
) -> None:
    """Train a tokenizer on images.

    With --model, train another model to compare it with. The model is written to OUT/model, next to the settings, the
    metrics and the checkpoints of the run. Options given here replace settings from --config, and --set replaces both.
    """
    if model is not None and model not in MODELS:
        raise ConfigurationError(
            f"--model must be one of {', '.join(MODELS)}, got {model!r}.{did_you_mean(model, MODELS)}"
        )
    chosen = {} if model in (None, TOKENIZER) else {"model": model}
    settings = settings_for(
        kind_of_run, given=chosen | dict(given), file=config, assignments=set_, out="", resume=resume
    )
    if isinstance(settings, BaselineTrainingConfig):
        if model == TOKENIZER:
            raise ConfigurationError(f"--model {TOKENIZER} contradicts model {settings.model.type} of the settings")
        if push_to_hub:
            raise ConfigurationError(f"--push-to-hub is for tokenizers, not for a {settings.model.type}: leave it out")
    if not settings.out:
        name = settings.model.type if isinstance(settings, BaselineTrainingConfig) else ""
        settings = settings.model_copy(update={"out": default_run(settings.dataset, name)})
    check_out(settings.out, resume=resume, overwrite=overwrite)
    if push_to_hub:
        check_can_push(push_to_hub)
    settings, train_images, test_images = open_training_images(settings)
    counts = {"images": f"{len(train_images):,} for training, {len(test_images):,} held out"}
    resolved("train", grouped(settings, counts, OPTIONS))
    for line in train_images.notes:
        note(line)

    if isinstance(settings, BaselineTrainingConfig):
        result = train_baseline(settings, train_images, test_images, resume=resume, overwrite=overwrite)
    else:
        assert isinstance(settings, TokenizerTrainingConfig)
        result = train_tokenizer(settings, train_images, test_images, resume=resume, overwrite=overwrite)
    finished = finished_model("train", result, settings.out)
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
    if isinstance(settings, BaselineTrainingConfig):
        done(
            f"{settings.model.type} written to {finished} (held-out: {numbers}), images in {settings.out}/samples",
            next=("vqtok", "inspect", settings.out),
        )
        return
    done(
        f"tokenizer written to {finished} (held-out: {numbers})",
        warnings=result.warnings,
        next=tokenize_with(
            finished,
            at_revision(settings.dataset, settings.revision),
            config=settings.dataset_config,
            image_column=settings.image_column,
        ),
    )
    if push_to_hub:
        push_finished(finished, push_to_hub)


def kind_of_run(values: Mapping[str, Any]) -> type[ImageTrainingConfig]:
    """What settings are of: those with a `model` of one of the baselines, all others of a tokenizer.

    Raises:
        ConfigurationError: a setting that only a tokenizer has beside a model.
    """
    model = values.get("model")
    if model is None:
        return TokenizerTrainingConfig
    name = model.get("type", BASELINE_TYPES.default) if isinstance(model, Mapping) else model
    only = [key for key in TokenizerTrainingConfig.model_fields if key not in BaselineTrainingConfig.model_fields]
    if found := [key for key in only if values.get(key) is not None]:
        raise ConfigurationError(
            f"{', '.join(found)} cannot be set for model {name}, only for a tokenizer: leave that out"
        )
    return BaselineTrainingConfig


def default_run(dataset: str, model: str = "") -> str:
    """runs/cifar10 for cifar10, runs/images for ./images, runs/mnist for org/mnist, runs/digits for digits.parquet.

    Of another model than a tokenizer runs/cifar10-vae.
    """
    path = Path(os.path.abspath(dataset))
    return f"runs/{path.stem if path.is_file() else path.name}{'-' if model else ''}{model}"
