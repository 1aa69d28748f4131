"""The table of van den Oord et al. 2017, section 4.1: VQ-VAE and what it is compared with, in bits per dimension.

    python scripts/paper_table.py cifar10 [--only vae vq-ema ...] [--steps 20000] [--out runs/paper-cifar10]
    python scripts/paper_table.py mnist

Every row is a run of `vqtok train` with the same networks, likelihood, steps, batch and learning rate; a VQ-VAE is then
tokenized with, and a PixelCNN learns its codes. Rows are measured on the whole test split. Finished ones are kept, and
unfinished ones go on where they were stopped. OUT/table.md holds the table, OUT/index.html the same with images, and
OUT/rows/NAME.json the numbers of a row with the commands that made it.

Distortion is -log2 p(x | z) and rate -log2 p(z), or the KL of a posterior that is not certain, in bits per dimension;
their sum bounds -log2 p(x). IWAE and VIMCO have a tighter bound of several samples, which is the total then. The rate
of a VQ-VAE is that of equally probable codes and, as learned, that of its prior given no class. An autoencoder has no
rate, and a CVAE bounds -log2 p(x | class).
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from paper_page import write_page

from vqtok.baselines import Autoencoder, Baseline, load_baseline
from vqtok.data import ImageDataset, open_images, ordered_batches, to_pixels
from vqtok.files import write_text
from vqtok.losses import in_bits
from vqtok_cli.mistakes import mistakes_in_one_line

SAMPLES = 50  # of a multi-sample bound in the evaluation, as many as the paper takes for VIMCO
MEASURED_AT_ONCE = 100


@dataclass(frozen=True)
class Table:
    """A dataset and how much is spent on it.

    Attributes:
        dataset: what `vqtok train --dataset` takes.
        steps: of every model.
        train: options of every model.
        prior: options of every prior.
        rows: by name, the options of `vqtok train` that make a model what it is.
    """

    dataset: str
    steps: int
    train: str
    prior: str
    rows: dict[str, str]


def product(codebooks: int, size: int, dim: int, method: str, *options: str) -> str:
    """Options of a VQ-VAE with several codes a position."""
    chosen = (f"codebook_size={size}", f"code_dim={dim}", *options)
    each = " ".join(f"--set quantizer.each.{option}" for option in chosen)
    return f"--quantizer product --set quantizer.num_codebooks={codebooks} --set quantizer.each={method} {each}"


def vimco(codebooks: int, size: int) -> str:
    """Options of VIMCO with as many codes a position."""
    sizes = f"--set model.num_codebooks={codebooks} --set model.codebook_size={size}"
    return f"--model vimco {sizes} --set model.num_samples=5"


BASELINES = {
    "ae": "--model autoencoder",
    "vae": "--model vae",
    "cvae": "--model cvae",
    "iwae": "--model iwae --set model.num_samples=5",
}

TABLES = {
    "cifar10": Table(
        dataset="cifar10",
        steps=20_000,
        train="--likelihood logistic --hidden-size 128 --batch-size 32 --learning-rate 0.002 --precision bf16",
        prior="--arch pixelcnn --set unconditional=true --set arch.hidden_size=128 --set arch.kernel_size=3 "
        "--set arch.num_layers=6 --steps 3000 --batch-size 32 --precision bf16 --set optimizer=muon "
        "--learning-rate 0.002",
        rows={
            **BASELINES,
            "vimco": vimco(10, 512),
            "vq": product(10, 512, 2, "vq", "beta=16"),
            "vq-ema": product(10, 512, 2, "ema", "beta=16"),
            "vq-gumbel": product(10, 512, 2, "gumbel"),
            "vq-ema-5x256": product(5, 256, 2, "ema", "beta=16"),
        },
    ),
    "mnist": Table(
        dataset="mnist",
        steps=2000,
        train="--likelihood logistic --hidden-size 64 --batch-size 64 --learning-rate 0.002",
        prior="--arch pixelcnn --steps 2000 --batch-size 64 --set arch.hidden_size=64",
        rows={
            **BASELINES,
            "vimco": vimco(2, 64),
            "vq": "--quantizer vq --codebook-size 256 --code-dim 4",
            "vq-ema": "--quantizer ema --codebook-size 256 --code-dim 4",
            "vq-gumbel": "--quantizer gumbel --codebook-size 256 --code-dim 4",
        },
    ),
}
"""The tables, of which `--only` takes some rows."""


def as_typed(*words: str) -> str:
    """A command of vqtok as text."""
    return shlex.join(("vqtok", *words))


def vqtok(*words: str) -> str:
    """Run a command of vqtok and give it back as text; where it fails it has said why, unless it was killed."""
    status = subprocess.run([sys.executable, "-m", "vqtok_cli.main", *words], check=False).returncode
    if status:
        sys.exit(f"killed by signal {-status}: {as_typed(*words)}" if status < 0 else status)
    return as_typed(*words)


def train(command: str, run: Path, *words: str) -> str:
    """Train into a run folder, or go on with the run in it; one that is finished stays as it is."""
    told = (command, *words, "--out", str(run))
    if not (run / "model" / "config.json").is_file():
        vqtok(*((command, "--resume", "--out", str(run)) if (run / "config.yaml").is_file() else told))
    return as_typed(*told)


def measure(name: str, table: Table, out: Path, steps: int) -> dict[str, Any]:
    """Train and measure a row, or read what an earlier call of this script left."""
    result, run = out / "rows" / f"{name}.json", out / name
    options = f"{table.rows[name]} {table.train} --steps {steps}"
    words = ("--dataset", table.dataset, *shlex.split(options))
    if result.is_file():
        found: dict[str, Any] = json.loads(result.read_text())
        if found["commands"][0] != as_typed("train", *words, "--out", str(run)):
            sys.exit(f"{result} was made by `{found['commands'][0]}`: give another --out, or remove it and {run}")
        return found
    commands = [train("train", run, *words)]
    numbers = measure_baseline(run, table) if "--model" in options else measure_tokenizer(run, table, commands)
    row = {"name": name, **numbers, "speed": speed_of(run), "commands": commands}
    result.parent.mkdir(parents=True, exist_ok=True)
    write_text(result, json.dumps(row, indent=2) + "\n")
    return row


def measure_tokenizer(run: Path, table: Table, commands: list[str]) -> dict[str, Any]:
    """Codes of a VQ-VAE, a prior that learns them, and the evaluation with both priors."""
    codes, prior = run.with_name(f"{run.name}-codes"), run.with_name(f"{run.name}-prior")
    commands.append(vqtok("tokenize", table.dataset, "--tokenizer", str(run), "--out", str(codes), "--quiet"))
    commands.append(train("train-prior", prior, str(codes), *shlex.split(table.prior)))
    measures = ("--tokenizer", str(run), "--bits-per-dim", "--prior", str(prior))
    commands.append(vqtok("evaluate", *measures, "--quiet"))
    found = json.loads((run / "model" / "metrics.json").read_text())
    bits = found["bits_per_dim"]
    return {
        "distortion": bits["distortion"],
        "rate": bits["uniform"]["rate"],
        "total": bits["uniform"]["total"],
        "learned_rate": bits["learned"]["rate"],
        "learned_total": bits["learned"]["total"],
        "mse_over_variance": found["mse_over_variance"],
        "num_images": found["num_images"],
    }


@torch.no_grad()
def measure_baseline(run: Path, table: Table) -> dict[str, Any]:
    """Distortion, rate and bound of a baseline over the test split, and its error without noise."""
    model = load_baseline(run / "model").eval()
    config, source = model.config, open_images(table.dataset, split="test")
    images = ImageDataset(source, image_size=config.size, num_channels=config.num_channels, resample=config.resample)
    torch.manual_seed(0)
    sums = torch.zeros(7, dtype=torch.float64)
    for batch in ordered_batches(images, MEASURED_AT_ONCE):
        pixels, labels = to_pixels(batch["pixels"]), batch["labels"] if model.label_names else None
        error = (model.reconstruct(pixels, labels) - pixels).double() / 2
        unit = (pixels.double() + 1) / 2
        bounds = [part.sum() for part in bounds_of(model, pixels, labels)]
        count = sums.new_tensor(unit.numel())
        sums += torch.stack([*bounds, error.square().sum(), unit.sum(), unit.square().sum(), count])
    distortion, rate, total, squares, first, second, count = sums.tolist()
    bits = in_bits(distortion=distortion / count, rate=rate / count)
    variance = second / count - (first / count) ** 2
    has_prior = not isinstance(model, Autoencoder)
    return {
        "distortion": bits["distortion"],
        "rate": bits["rate"] if has_prior else None,
        "total": in_bits(distortion=total / count, rate=0.0)["bits_per_dim"] if has_prior else None,
        "learned_rate": None,
        "learned_total": None,
        "mse_over_variance": squares / count / variance,
        "num_images": len(images),
    }


def bounds_of(model: Baseline, pixels: torch.Tensor, labels: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    """Distortion, rate and the bound in nats per image; the bound of many samples for what was trained on one such."""
    if isinstance(model, Autoencoder):
        nats = model.likelihood.negative_log_likelihood(model.decode(model.encode(pixels)), pixels)
        return nats, torch.zeros_like(nats), nats
    multi_sample = getattr(model.config.chosen, "num_samples", 1) > 1
    return tuple(model.bound(pixels, labels, num_samples=SAMPLES if multi_sample else 1))


def speed_of(run: Path) -> float:
    """Images a second in training: the median over what the run logged."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    speeds = sorted(row["images_per_second"] for row in rows if row["split"] == "train")
    return float(speeds[len(speeds) // 2])


COLUMNS = ("model", "distortion", "rate", "bits/dim", "learned rate", "bits/dim, learned prior", "MSE over variance")
NUMBERS = ("distortion", "rate", "total", "learned_rate", "learned_total", "mse_over_variance")


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for row in rows:
        cells = ["" if row[key] is None else f"{row[key]:.{4 if key == NUMBERS[-1] else 3}f}" for key in NUMBERS]
        lines.append(f"| {' | '.join([row['name'], *cells])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--dataset", help="where the dataset is, if not on the Hub under its own name")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    table, out = TABLES[args.table], args.out or Path(f"runs/paper-{args.table}")
    if args.dataset:
        table = replace(table, dataset=args.dataset)
    names = args.only or list(table.rows)
    if unknown := sorted(set(names) - set(table.rows)):
        parser.error(f"no row {', '.join(unknown)} in {args.table}, which has {', '.join(table.rows)}")
    rows = [measure(name, table, out, args.steps or table.steps) for name in names]
    text = markdown(rows)
    write_text(out / "table.md", text)
    write_page(out, table.dataset, rows, text)
    print(text)


if __name__ == "__main__":
    with mistakes_in_one_line():
        main()
