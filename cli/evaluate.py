"""vqtok evaluate: how good a tokenizer is, in numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from vqtok.training import TokenizerTrainingConfig

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
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Tokenizer or run folder, or Hub id. [default: the newest finished run below runs/]"),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="What vqtok train takes. [default: what the tokenizer was trained on]")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the dataset.")] = "test",
    out: Annotated[Path | None, typer.Option(help="JSON file. [default: metrics.json in the tokenizer folder]")] = None,
    num_images: Annotated[int | None, typer.Option(help="Only the first so many images. [default: all]")] = None,
    batch_size: Annotated[int, typer.Option(help="Images at once.")] = 128,
    image_column: Annotated[str | None, typer.Option(help="Where the feature types do not decide.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of a tokenizer on the Hub: branch, tag or commit.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ... [default: cuda where there is one]")] = None,
) -> None:
    """Measure reconstruction and use of codes. The result is written as JSON."""
    from vqtok.data import open_images
    from vqtok.errors import ConfigurationError
    from vqtok.evaluation import evaluate_tokenizer, write_metrics
    from vqtok.quantizers import CodeCounting
    from vqtok.training.runs import newest_model
    from vqtok_cli.output import done, note, resolved, say
    from vqtok_cli.tokenizers import load_tokenizer

    if out is not None and out.is_dir():
        raise ConfigurationError(f"--out {out} is a folder: give the name of a JSON file")
    model = load_tokenizer(tokenizer or str(newest_model("tokenizer")), device=device, revision=revision)
    folder = Path(str(model.repository))
    data = data_settings(folder, dataset) | ({"image_column": image_column} if image_column else {})
    source = open_images(data.pop("dataset"), split=split, **data)
    target = out or (folder if folder.is_dir() else Path()) / "metrics.json"
    resolved(
        "evaluate",
        {
            "tokenizer": f"{model.repository} ({model.fingerprint[:12]})",
            "revision": model.revision,
            "dataset": source.name + ("" if dataset else " (what it was trained on)"),
            "split": f"{source.split}, {len(source):,} images",
            "num_images": num_images,
            "batch_size": batch_size,
            "device": model.device,
            "out": target,
        },
    )
    for line in source.notes:
        note(line)
    metrics = evaluate_tokenizer(model, source, num_images=num_images, batch_size=batch_size)
    # how held-out images were chosen, where the dataset has no split of its own for them
    held_out = {"test_share": data.get("test_share", 0.1), "seed": data.get("seed", 0), "notes": list(source.notes)}
    write_metrics(metrics | held_out, target)
    for line in filter(None, [CodeCounting.of(model.quantizer).note()]):
        note(line)
    for name, unit in ((name, unit) for name, unit in MEASURES.items() if name in metrics):
        value = metrics[name]
        say(f"  {name:<18} {'not defined here' if value is None else f'{value:.5g}{unit}'}")
    done(
        f"measured on {metrics['num_images']:,} images, written to {target}",
        next=f"vqtok tokenize ./images --tokenizer {model.repository} --out codes",
    )


def run_of(tokenizer: Path) -> TokenizerTrainingConfig | None:
    """The configuration of the run that a tokenizer folder is the `model/` of."""
    from vqtok.training import TokenizerTrainingConfig
    from vqtok.training.resolution import load_config

    saved = tokenizer.resolve().parent / "config.yaml"
    return load_config(TokenizerTrainingConfig, saved) if tokenizer.is_dir() and saved.is_file() else None


def data_settings(tokenizer: Path, dataset: str | None) -> dict[str, Any]:
    """What `open_images` is to be told: the dataset, and how the run of the tokenizer read it where that is the one.

    Images that a run held out by its own seed and share must be the ones measured on, for the rest it was trained on.

    Raises:
        ConfigurationError: no dataset is named, and no run beside the tokenizer names one.
    """
    from vqtok.errors import ConfigurationError

    run = run_of(tokenizer)
    if dataset is None and run is None:
        raise ConfigurationError(f"no run beside {tokenizer} says what it was trained on: name images with --dataset")
    if run is None or dataset not in (None, run.dataset):
        return {"dataset": dataset}
    names = ("dataset", "revision", "image_column", "label_column", "test_share", "seed")
    return {name: getattr(run, name) for name in names}
