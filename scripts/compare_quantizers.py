"""Quantizers on one dataset, at equal steps, grid and, as near as each allows, bits an image.

    python scripts/compare_quantizers.py [GROUP] [--dataset cifar10] [--steps 2000] [--out runs/compare] [--only ema vq]

A group is a table: all methods (quantizers), the options of ema and vq that the defaults rest on (options), methods
with many codes (large), what makes lfq better or worse (lfq), and why ibq and gumbel have the defaults that they have
(ibq, gumbel). Every row is a run of `vqtok train` with its defaults but for the quantizer, the batch size and the
number of steps, measured like `vqtok evaluate` on the whole test split. Finished rows are kept, so that the script goes
on where it was stopped. The table is printed as Markdown and written to OUT/table.md. Images a second are of training
steps on one batch, all rows in turn so that the noise of the machine falls on all alike, medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from bench_training import seconds, training_step

from vqtok.data import ImageSource, open_splits
from vqtok.evaluation import evaluate_tokenizer, write_metrics
from vqtok.tokenizer import VQTokenizer
from vqtok.training import TokenizerTrainingConfig, open_training_images, train_tokenizer

BATCH = 32

# The 9 bits of K = 512 at every position; then more bits, where a method is made for more.
QUANTIZERS: dict[str, dict[str, Any]] = {
    "ema": {"type": "ema"},
    "vq": {"type": "vq"},
    "simvq": {"type": "simvq"},
    "ibq": {"type": "ibq"},
    "gumbel": {"type": "gumbel"},
    "fsq": {"type": "fsq", "levels": [8, 8, 8]},
    "bsq": {"type": "bsq", "codebook_size": 512},
    "lfq": {"type": "lfq", "codebook_size": 512},
    "product 3x8": {"type": "product", "num_codebooks": 3, "each": {"codebook_size": 8, "code_dim": 21}},
    "residual 3x8": {"type": "residual", "num_codebooks": 3, "each": {"codebook_size": 8}},
    "product 2x512": {"type": "product", "num_codebooks": 2, "each": {"codebook_size": 512, "code_dim": 32}},
    "residual 2x512": {"type": "residual", "num_codebooks": 2, "each": {"codebook_size": 512}},
    "simvq 16384": {"type": "simvq", "codebook_size": 16384},
}

CHANGES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "kmeans": {"init": "kmeans"},
    "normal": {"init": "normal"},
    "projection 8": {"projection_dim": 8},
    "cosine": {"metric": "cosine"},
    "rotation": {"gradient": "rotation"},
    "no restart": {"restart_threshold": 0.0},
    "restart 0.1": {"restart_threshold": 0.1},
    "restart 0.2": {"restart_threshold": 0.2},
    "restart 0.4": {"restart_threshold": 0.4},
    "entropy 0.1": {"entropy_weight": 0.1},
}

GROUPS: dict[str, dict[str, dict[str, Any]]] = {
    "quantizers": QUANTIZERS,
    "options": {
        f"{method} {name}": {"type": method, **change} for method in ("ema", "vq") for name, change in CHANGES.items()
    },
    "large": {
        f"{method} {size}": {"type": method, "codebook_size": size}
        for method in ("ema", "vq", "simvq", "ibq")
        for size in (1024, 16384)
    },
    "lfq": {
        "lfq": {"type": "lfq"},
        "lfq without entropy": {"type": "lfq", "entropy_weight": 0.0},
        "lfq as in the paper": {"type": "lfq", "scale": 1.0, "temperature": 0.01},
        "lfq of 1 and -1": {"type": "lfq", "scale": 1.0, "temperature": 1.0},
        "lfq of 1 and -1, beta 0.03": {"type": "lfq", "scale": 1.0, "temperature": 1.0, "beta": 0.03},
        "lfq of 1 and -1, without entropy": {"type": "lfq", "scale": 1.0, "temperature": 1.0, "entropy_weight": 0.0},
        "lfq of 1 and -1, beta 0": {"type": "lfq", "scale": 1.0, "temperature": 1.0, "beta": 0.0},
        "lfq of a third": {"type": "lfq", "scale": 1 / 3, "temperature": 1 / 3},
        "lfq of 0.15": {"type": "lfq", "scale": 0.15, "temperature": 0.15},
        "lfq of 0.035": {"type": "lfq", "scale": 0.035, "temperature": 0.035},
        "lfq entropy 0.01": {"type": "lfq", "entropy_weight": 0.01},
        "bsq": {"type": "bsq"},
        "bsq without entropy": {"type": "bsq", "entropy_weight": 0.0},
        "fsq of two levels": {"type": "fsq", "levels": [2] * 9},
    },
    "ibq": {
        "ibq": {"type": "ibq"},
        "ibq as in the paper": {"type": "ibq", "metric": "dot", "temperature": 1.0, "restart_threshold": 0.0},
        "ibq no restart": {"type": "ibq", "restart_threshold": 0.0},
        "ibq temperature 0.1": {"type": "ibq", "temperature": 0.1},
        "ibq temperature 0.01": {"type": "ibq", "temperature": 0.01},
    },
    "gumbel": {
        "gumbel": {"type": "gumbel"},
        "gumbel restart 0.05": {"type": "gumbel", "restart_threshold": 0.05},
        "gumbel no restart": {"type": "gumbel", "restart_threshold": 0.0},
        "gumbel soft": {"type": "gumbel", "hard": False},
    },
}

COLUMNS = (
    "quantizer",
    "bits an image",
    "MSE over variance",
    "PSNR, dB",
    "perplexity",
    "codes in use",
    "images a second",
)
HEADER = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


def measure(name: str, quantizer: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate one row, or read what an earlier call of this script left."""
    run = args.out / folder_of(name)
    result = run / "row.json"
    if result.is_file():
        row: dict[str, Any] = json.loads(result.read_text())
        return row
    config = TokenizerTrainingConfig(
        out=str(run),
        dataset=args.dataset,
        quantizer=quantizer,
        steps=args.steps,
        batch_size=args.batch_size,
        eval_every=args.steps,
        checkpoint_every=500,
    )
    config, train, test = open_training_images(config)
    train_tokenizer(config, train, test, resume=(run / "config.yaml").is_file())
    row = evaluate(run, test) | {"name": name}
    write_metrics(row, result)
    return row


def folder_of(name: str) -> str:
    return name.replace(" ", "-")


def evaluate(run: Path, test: ImageSource) -> dict[str, Any]:
    model = VQTokenizer.from_pretrained(run / "model")
    metrics = evaluate_tokenizer(model, test)
    write_metrics(metrics, run / "model" / "metrics.json")
    return metrics


def speeds(runs: list[Path], rounds: int) -> list[float]:
    """Images a second of a training step, forward, backward and optimizer, for each finished run."""
    models = [VQTokenizer.from_pretrained(run / "model") for run in runs]
    steps = [
        training_step(
            model.train().to(memory_format=torch.channels_last),
            torch.rand(BATCH, model.config.num_channels, *model.config.size) * 2 - 1,
        )
        for model in models
    ]
    took = [[seconds(step) for step in steps] for _ in range(rounds + 2)][2:]  # the first two warm up
    return [BATCH / statistics.median(column) for column in zip(*took, strict=True)]


def line(row: dict[str, Any], speed: float) -> str:
    codes = row["num_codebooks"] * row["codebook_size"]
    return (
        f"| {row['name']} | {row['bits_per_image']:.0f} | {row['mse_over_variance']:.4f} | {row['psnr']:.2f} | "
        f"{row['perplexity']:,.1f} | {row['codes_in_use']:,} of {codes:,} | {speed:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("group", nargs="?", choices=GROUPS, default="quantizers")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=BATCH)
    parser.add_argument("--out", type=Path, default=Path("runs/compare"))
    parser.add_argument("--rounds", type=int, default=15, help="training steps of each that are timed")
    parser.add_argument("--only", nargs="+", metavar="NAME")
    args = parser.parse_args()
    recipes = GROUPS[args.group]
    names = args.only or list(recipes)
    if unknown := sorted(set(names) - set(recipes)):
        parser.error(f"no row {', '.join(unknown)} in {args.group}, which has {', '.join(recipes)}")
    open_splits(args.dataset)  # a name that does not exist is refused before anything is trained
    rows = [measure(name, recipes[name], args) for name in names]
    found = speeds([args.out / folder_of(name) for name in names], args.rounds)
    lines = [HEADER, *(line(row, speed) for row, speed in zip(rows, found, strict=True))]
    (args.out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
