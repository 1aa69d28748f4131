"""vqtok train: images -> a tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["train"]


def train(
    dataset: Annotated[
        str | None,
        typer.Option(help="mnist-mini, mnist, cifar10, a Hub id, a folder of images, or files that datasets reads."),
    ] = None,
    out: Annotated[str | None, typer.Option(help="Run folder. [default: runs/<dataset>]")] = None,
    quantizer: Annotated[
        str | None,
        typer.Option(help="bsq, ema, fsq, gumbel, ibq, lfq, product, residual, simvq or vq. [default: ema]"),
    ] = None,
    codebook_size: Annotated[int | None, typer.Option(help="Number of codes. [default: 512]")] = None,
    code_dim: Annotated[int | None, typer.Option(help="Dimension of a code. [default: 64]")] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels a side. [default: the images' own]")] = None,
    num_channels: Annotated[int | None, typer.Option(help="1 grey, 3 RGB. [default: the images' own]")] = None,
    downsample_factor: Annotated[int | None, typer.Option(help="Pixels a side for one code. [default: 4]")] = None,
    hidden_size: Annotated[int | None, typer.Option(help="Width of the networks. [default: 128]")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps. [default: 10000]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step, over all processes. [default: 32]")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate. [default: 0.002]")] = None,
    precision: Annotated[str | None, typer.Option(help="no (float32), bf16 or fp16. [default: no]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and noise. [default: 0]")] = None,
    tracker: Annotated[str | None, typer.Option(help="none, tensorboard, trackio or wandb. [default: none]")] = None,
    dataset_config: Annotated[
        str | None, typer.Option(help="Which configuration of a dataset that has several.")
    ] = None,
    image_column: Annotated[str | None, typer.Option(help="Where the feature types do not decide.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Where the feature types do not decide.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings, such as a run's config.yaml.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other setting, such as quantizer.beta=0.5; repeatable."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's newest checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in --out.")] = False,
    push_to_hub: Annotated[str | None, typer.Option(metavar="ORG/NAME", help="Push the finished model.")] = None,
) -> None:
    """Train a tokenizer on a set of images."""
    from vqtok.errors import ConfigurationError
    from vqtok.hub import check_can_push, push
    from vqtok.training import (
        TokenizerTrainingConfig,
        open_training_images,
        resolve_config,
        resume_config,
        train_tokenizer,
    )
    from vqtok_cli.output import done, note, resolved

    options = {
        "dataset": dataset,
        "quantizer": quantizer,
        "quantizer.codebook_size": codebook_size,
        "quantizer.code_dim": code_dim,
        "image_size": image_size,
        "num_channels": num_channels,
        "network.downsample_factor": downsample_factor,
        "network.hidden_size": hidden_size,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "precision": precision,
        "seed": seed,
        "tracker": tracker,
        "dataset_config": dataset_config,
        "image_column": image_column,
        "label_column": label_column,
        "out": out,
    }
    if resume:
        if out is None:
            raise ConfigurationError("--resume needs the run folder: --out runs/<name>")
        settings = resume_config(
            TokenizerTrainingConfig, Path(out), file=config, options=options, assignments=set_ or []
        )
    else:
        settings = resolve_config(
            TokenizerTrainingConfig,
            base={"out": ""},
            file=config,
            options=options,
            assignments=set_ or [],
        )
        settings.out = settings.out or default_run(settings.dataset)
    if push_to_hub:
        check_can_push(push_to_hub)
    settings, train_images, test_images = open_training_images(settings)
    resolved("train", vars(settings) | {"images": f"{len(train_images)} train, {len(test_images)} test"})
    for line in train_images.notes:
        note(line)

    result = train_tokenizer(settings, train_images, test_images, resume=resume, overwrite=overwrite)
    if result.model is None:
        assert result.stopped_by is not None  # nothing else ends a run early
        done(
            f"{result.stopped_by.name} at step {result.step}: saved in {settings.out}/checkpoints",
            next=f"vqtok train --resume --out {settings.out}",
        )
        raise typer.Exit(128 + result.stopped_by)
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
    warnings = [f"warning: {line}" for line in result.warnings]
    done(
        "\n".join([f"tokenizer written to {result.model} (held-out: {numbers})", *warnings]),
        next=f"vqtok tokenize ./images --tokenizer {result.model} --out codes",
    )
    if push_to_hub:
        done(f"pushed to {push(result.model, push_to_hub)}")


def default_run(dataset: str) -> str:
    """runs/cifar10 for cifar10, runs/images for ./images, runs/mnist for org/mnist, runs/digits for digits.parquet."""
    path = Path(dataset).resolve()
    return f"runs/{path.stem if path.is_file() else path.name}"
