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
    PriorRevision,
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
    bits_per_dim: Annotated[
        bool,
        typer.Option(
            "--bits-per-dim",
            help="Also measure bits per dimension: a bound on -log2 p(x), of a tokenizer trained with a likelihood.",
        ),
    ] = False,
    prior: Annotated[
        str | None,
        typer.Option(
            help="With --bits-per-dim: prior over the codes, its folder, a run folder or a Hub id.",
            show_default="equally probable codes, which are measured in any case",
        ),
    ] = None,
    prior_revision: PriorRevision = None,
    with_labels: Annotated[
        bool,
        typer.Option("--with-labels", help="Give the prior the class of each image: a bound on -log2 p(x | class)."),
    ] = False,
    batch_size: BatchSize = 128,
    dataset_config: DatasetConfig = None,
    image_column: ImageColumn = None,
    revision: TokenizerRevision = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Measure how well a tokenizer reconstructs images.

    Reports the reconstruction error, PSNR, SSIM and the use of codes on held-out images, and with --bits-per-dim how
    many bits the pixels themselves take: rate, of the codes, plus distortion, of the pixels given their codes.
    """
    from vqtok.data import open_images
    from vqtok.evaluation import BitsPerDim, check_metrics_file, evaluate_tokenizer, write_metrics
    from vqtok.names import at_revision
    from vqtok.quantizers import CodeCounting
    from vqtok.text import counted
    from vqtok_cli.output import done, note, resolved
    from vqtok_cli.runs import data_settings, noting_changes
    from vqtok_cli.tokenizers import load_prior_of, load_tokenizer, tokenize_with

    check_asked(bits_per_dim, {"prior": prior, "prior_revision": prior_revision, "with_labels": with_labels or None})
    model = load_tokenizer(tokenizer, device=device, revision=revision)
    loaded = load_prior_of(model, prior, prior_revision)
    bits = BitsPerDim(model, loaded, with_labels=with_labels) if bits_per_dim else None
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
            "bits_per_dim": model.config.likelihood["type"] if bits else None,
            "prior": loaded.name_or_path if loaded else None,
            "prior_revision": loaded.revision if loaded else None,
            "batch_size": batch_size,
            "device": model.device,
            "out": target,
        },
        err=as_json,
    )
    for line in source.notes:
        note(line, err=as_json)
    metrics = evaluate_tokenizer(model, source, num_images=num_images, batch_size=batch_size, bits=bits)
    notes = [*source.notes, *(bits.notes if bits else ())]
    # how held-out images were chosen, where the dataset has no split of its own for them
    held_out = {"test_share": data.get("test_share", 0.1), "seed": data.get("seed", 0), "notes": notes}
    write_metrics(metrics | held_out, target)
    if counting := CodeCounting.of(model.quantizer).note():
        note(counting, err=as_json)
    for line in bits.notes if bits else ():
        note(line, err=as_json)
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


def check_asked(bits_per_dim: bool, given: Mapping[str, object]) -> None:
    """Refuse options that only say how bits per dimension are measured, where those are not asked for."""
    from vqtok.errors import ConfigurationError

    if not bits_per_dim and (unused := [f"--{name.replace('_', '-')}" for name in given if given[name] is not None]):
        raise ConfigurationError(f"{unused[0]} says how bits per dimension are measured: add --bits-per-dim")


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
    if bits := metrics.get("bits_per_dim"):
        print_bits(bits)


def print_bits(bits: Mapping[str, Any]) -> None:
    """Rate, distortion and total in bits per dimension, a line for each prior."""
    from vqtok_cli.output import say

    kind = f"{bits['likelihood']}, a density" if bits["density"] else bits["likelihood"]
    say(f"  {f'bits per dimension ({kind})':<40} {'rate':>8} {'distortion':>11} {'total':>8}")
    for name, shown in {"uniform": "equally probable codes", "learned": "prior"}.items():
        if name in bits:
            one = bits[name]
            shown += f" {one['prior']['repository']}" if "prior" in one else ""
            say(f"    {shown:<38} {one['rate']:8.4f} {bits['distortion']:11.4f} {one['total']:8.4f}")
