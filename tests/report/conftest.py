"""What a tokenizer run, its codes and a prior run leave on disk, written by hand and small."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from tests.written_codes import write_spec, write_split
from vqtok.codes import CodesSpec
from vqtok.data import open_images
from vqtok.evaluation import measure_health
from vqtok.priors import PriorBinding, build_prior
from vqtok.report.health import draw_health
from vqtok.tokenizer import VQTokenizer


@dataclass(frozen=True)
class Left:
    """The folders of the stages and the codes in them."""

    root: Path
    tokenizer: VQTokenizer
    codes: Mapping[str, np.ndarray[Any, Any]]

    def __getattr__(self, name: str) -> Path:
        return self.root / name


def write_run(run: Path, config: Mapping[str, Any], rows: list[Mapping[str, Any]]) -> None:
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump({"out": str(run), "checkpoint_every": 10, **config}))
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="session")
def left(tiny_tokenizer_once: VQTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Left:
    root = tmp_path_factory.mktemp("left")
    write_run(
        root / "tokenizer",
        {"dataset": "org/digits", "steps": 20},
        [
            {"step": 10, "split": "train", "loss": 0.9, "reconstruction": 0.8, "perplexity": 5.0},
            {"step": 20, "split": "train", "loss": 0.5, "reconstruction": 0.4, "perplexity": 6.0},
            {"step": 20, "split": "test", "mse": 0.125, "perplexity": 6.5, "usage": 0.5},
        ],
    )
    tiny_tokenizer_once.save_pretrained(root / "tokenizer" / "model")
    grids = root / "tokenizer" / "samples"
    grids.mkdir()
    for step, level in ((10, 1), (20, 2)):
        Image.new("L", (40, 20), level).save(grids / f"step-{step:06d}.png")

    noise = np.random.default_rng(0)
    codes = {"train": noise.integers(0, 10, (6, 4, 4)), "test": noise.integers(0, 16, (3, 4, 4))}
    spec = CodesSpec.from_tokenizer(tiny_tokenizer_once)
    label = datasets.Features({"label": datasets.ClassLabel(names=["cat", "<dog>"])})
    for split, grids in codes.items():
        labels = pa.table({"label": np.arange(len(grids)) % 2})
        write_split(root / "codes" / split, grids, spec, columns=labels, features=label, split=split)
    (root / "codes" / "dataset_dict.json").write_text(json.dumps({"splits": list(codes)}))
    write_spec(root / "codes", spec)
    bad = {"split": ["train"], "row": [6], "path": ["broken.png"], "reason": ["broken.png is broken"]}
    pq.write_table(pa.table(bad), root / "codes" / "bad_images.parquet")

    write_run(
        root / "prior",
        {"codes": "codes", "steps": 20},
        [
            {"step": 20, "split": "train", "loss": 2.0, "bits_per_code": 2.9},
            {"step": 20, "split": "test", "loss": 2.1, "bits_per_code": 3.25, "unigram_bits_per_code": 3.5},
        ],
    )
    binding = PriorBinding(
        fingerprint=tiny_tokenizer_once.fingerprint,
        grid=(4, 4),
        codebook_size=16,
        label_names=("cat", "<dog>"),
        tokenizer="runs/digits/model",
    )
    torch.manual_seed(0)
    small = {"type": "transformer", "hidden_size": 16, "num_layers": 1, "num_heads": 2}
    build_prior(binding, small).save_pretrained(root / "prior" / "model")
    for number in range(6):
        path = root / "images" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (16, 16), dtype=np.uint8)).save(path)
    source = open_images(str(root / "images"), split="train")
    draw_health(measure_health(tiny_tokenizer_once, source), root / "health")
    Image.new("L", (64, 32), 3).save(root / "samples.png")
    stages = [{"command": "vqtok train --out a&b", "seconds": 61.4}]
    (root / "stages.json").write_text(json.dumps({"stages": stages}))
    return Left(root, tiny_tokenizer_once, codes)
