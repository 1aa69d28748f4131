"""vqtok evaluate: how good a tokenizer is, in numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from vqtok.training import TokenizerTrainingConfig

__all__ = ["evaluate"]


def evaluate(
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Tokenizer or run folder, or Hub id. [default: the newest finished run below runs/]"),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="What vqtok train takes. [default: what the tokenizer was trained on]")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "test",
    out: Annotated[Path | None, typer.Option(help="JSON file. [default: metrics.json in the tokenizer folder]")] = None,
    num_images: Annotated[int | None, typer.Option(help="Only the first so many pictures. [default: all]")] = None,
    batch_size: Annotated[int, typer.Option(help="Pictures at once.")] = 128,
    image_column: Annotated[str | None, typer.Option(help="Where the feature types do not decide.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of a tokenizer on the Hub: branch, tag or commit.")] = None,
) -> None:
    """Measure reconstruction and code use on a named set of pictures, written as JSON."""
    import torch

    from vqtok.data import open_images
    from vqtok.errors import ConfigurationError
    from vqtok.evaluation import evaluate_tokenizer, write_metrics
    from vqtok.tokenizer import VQTokenizer
    from vqtok.training.runs import newest_model
    from vqtok_cli.output import done, note, resolved

    name = tokenizer if tokenizer is not None else str(newest_model("tokenizer"))
    if (Path(name) / "model" / "config.json").is_file():
        name = str(Path(name) / "model")
    local = Path(name).is_dir()
    run = run_settings(Path(name)) if local else None
    if dataset is None and run is None:
        raise ConfigurationError(f"{name} has no run beside it that says what it was trained on: give --dataset")
    wanted: dict[str, Any] = {"dataset": dataset, "image_column": image_column}
    if run is not None and dataset in (None, run.dataset):
        # the same pictures held out by the same seed, or it would be measured on pictures that it was trained on
        wanted = {
            "dataset": run.dataset,
            "image_column": image_column or run.image_column,
            "label_column": run.label_column,
            "revision": run.revision,
            "test_share": run.test_share,
            "seed": run.seed,
        }
    device = "cuda" if torch.cuda.is_available() else "cpu"
    target = out or (Path(name) if local else Path()) / "metrics.json"
    if target.is_dir():
        raise ConfigurationError(f"--out {target} is a folder: give the name of a JSON file")
    model = VQTokenizer.from_pretrained(name, **({} if local else {"revision": revision or "main"})).to(device)
    source = open_images(split=split, **wanted)
    resolved(
        "evaluate",
        {
            "tokenizer": name + (" (the newest finished run)" if tokenizer is None else ""),
            "revision": model.revision,
            "dataset": source.name + (" (what it was trained on)" if dataset is None else ""),
            "split": f"{source.split}, {len(source):,} pictures",
            "num_images": num_images,
            "batch_size": batch_size,
            "device": device,
            "out": target,
        },
    )
    for line in source.notes:
        note(line)
    carved = {key: wanted.get(key) for key in ("test_share", "seed")} if "test_share" in wanted else {}
    metrics = evaluate_tokenizer(model, source, num_images=num_images, batch_size=batch_size)
    path = write_metrics({**metrics, **carved, "notes": list(source.notes)}, target)
    for key in ("mse", "mse_over_variance", "psnr", "ssim", "perplexity"):
        if metrics[key] is not None:
            typer.echo(f"  {key:<18} {metrics[key]:.5g}{' dB' if key == 'psnr' else ''}")
    typer.echo(f"  {'codes_in_use':<18} {metrics['codes_in_use']} of {metrics['codebook_size']}")
    typer.echo(f"  {'bits_per_image':<18} {metrics['bits_per_image']:g}")
    done(
        f"metrics of {metrics['num_images']:,} pictures written to {path}",
        next=f"vqtok inspect {name}" if local else None,
    )


def run_settings(tokenizer: Path) -> TokenizerTrainingConfig | None:
    """How the tokenizer was trained, where it is the `model/` of a run."""
    from vqtok.training import TokenizerTrainingConfig
    from vqtok.training.config import load_config

    path = tokenizer.resolve().parent / "config.yaml"
    return load_config(TokenizerTrainingConfig, path) if path.is_file() else None
