"""vqtok evaluate: how good a tokenizer is, in numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vqtok_cli.parameters import (
    DATASETS,
    AsJson,
    BatchSize,
    DatasetConfig,
    Device,
    ImageColumn,
    TokenizerName,
    TokenizerRevision,
)

__all__ = ["evaluate"]

# What is printed, with units; the file holds more.
MEASURES = {
    "mse": "",
    "mse_over_variance": "",
    "psnr": " dB",
    "ssim": "",
    "perplexity": "",
    "codes_in_use": "",
    "bits_in_use": "",
    "bit_usage": "",
    "constant_dimensions": "",
    "codebook_size": "",
    "bits_per_image": "",
}


def evaluate(
    tokenizer: TokenizerName = None,
    dataset: Annotated[
        str | None, typer.Option(help=f"Images: {DATASETS}.", show_default="what the tokenizer was trained on")
    ] = None,
    split: Annotated[str, typer.Option(help="Split to read.")] = "test",
    out: Annotated[
        Path | None,
        typer.Option(
            help="JSON file to write. vqtok push publishes metrics.json in the tokenizer folder, and no other metrics.",
            show_default="in the tokenizer folder, of a Hub tokenizer in the working folder: metrics.json, or for "
            "another split than test and for part of it such as metrics-train-N-images.json",
        ),
    ] = None,
    num_images: Annotated[
        int | None,
        typer.Option(help="Number of images to measure on, chosen at random once and for all.", show_default="all"),
    ] = None,
    batch_size: BatchSize = 128,
    dataset_config: DatasetConfig = None,
    image_column: ImageColumn = None,
    revision: TokenizerRevision = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Measure how well a tokenizer reconstructs images.

    Reports the reconstruction error, PSNR, SSIM and the use of codes on held-out images.
    """
    from vqtok.data import open_images
    from vqtok.evaluation import check_metrics_file, evaluate_tokenizer, write_metrics
    from vqtok.names import at_revision
    from vqtok.quantizers import CodeCounting
    from vqtok.text import counted
    from vqtok_cli.output import done, note, resolved
    from vqtok_cli.runs import data_settings, noting_changes
    from vqtok_cli.tokenizers import load_tokenizer, tokenize_with

    model = load_tokenizer(tokenizer, device=device, revision=revision)
    folder = Path(str(model.repository))
    data = data_settings(folder, dataset) | ({"image_column": image_column} if image_column else {})
    data |= {"config": dataset_config} if dataset_config else {}
    name = data.pop("dataset")
    source = noting_changes(open_images(name, split=split, **data), folder, data)
    target = out or (folder if folder.is_dir() else Path()) / file_name(split, num_images, len(source))
    check_metrics_file(target)
    resolved(
        "evaluate",
        {
            "tokenizer": f"{model.repository} ({model.fingerprint[:12]})",
            "revision": model.revision,
            "dataset": source.name + ("" if dataset else " (what it was trained on)"),
            "split": f"{source.split}, {counted(len(source), 'image')}",
            "num_images": num_images,
            "batch_size": batch_size,
            "device": model.device,
            "out": target,
        },
        err=as_json,
    )
    for line in source.notes:
        note(line, err=as_json)
    metrics = evaluate_tokenizer(model, source, num_images=num_images, batch_size=batch_size)
    # how held-out images were chosen, where the dataset has no split of its own for them
    held_out = {"test_share": data.get("test_share", 0.1), "seed": data.get("seed", 0), "notes": list(source.notes)}
    write_metrics(metrics | held_out, target)
    if counting := CodeCounting.of(model.quantizer).note():
        note(counting, err=as_json)
    print_measures(metrics | held_out, as_json=as_json)
    done(
        f"measured on {counted(metrics['num_images'], 'image')}, written to {target}",
        next=tokenize_with(
            model.repository,
            at_revision(name, data.get("revision")),
            config=data.get("config"),
            image_column=data.get("image_column"),
            revision=revision,
        ),
        err=as_json,
    )


def file_name(split: str, num_images: int | None, images: int) -> str:
    """metrics.json for all held-out images, whose place no other split and no part may take: metrics-train-2-images."""
    from vqtok.data.layout import split_group

    of_split = "" if split_group(split) == "test" else "-" + re.sub(r"[^\w.-]", "_", split)
    of_part = "" if num_images is None or num_images >= images else f"-{num_images}-images"
    return f"metrics{of_split}{of_part}.json"


def print_measures(metrics: Mapping[str, Any], *, as_json: bool) -> None:
    """All that was measured as JSON, or what people look at first with its units."""
    from vqtok_cli.output import say

    if as_json:
        typer.echo(json.dumps(metrics, allow_nan=False))
        return
    for name, unit in ((name, unit) for name, unit in MEASURES.items() if name in metrics):
        value = metrics[name]
        say(f"  {name:<18} {'not defined here' if value is None else f'{value:.5g}{unit}'}")
