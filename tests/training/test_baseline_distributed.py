"""Two processes, or a batch in parts, learn a baseline as one process does from the whole of it, given the noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tests.training.runs import rows
from tests.two_processes import connect, run_two_processes
from vqtok.baselines.categorical import CategoricalPosterior
from vqtok.baselines.gaussian import DiagonalGaussian
from vqtok.data import open_splits
from vqtok.training import images as image_tasks
from vqtok.training.baseline import train_baseline
from vqtok.training.baseline_config import BaselineTrainingConfig

CODES = {"num_codebooks": 2, "codebook_size": 5, "code_dim": 3, "num_samples": 2}
METHODS = {"cvae": {}, "likelihood-ratio": CODES}


def noise(self: DiagonalGaussian, num_samples: int, generator: Any = None) -> Tensor:
    """As good as random, and the same for an image wherever it is in a batch."""
    return torch.stack([torch.sin(37 * self.mean.detach() + sample) for sample in range(num_samples)])


def sample(self: CategoricalPosterior, num_samples: int, generator: Any = None) -> Tensor:
    best = self.log_probs.argmax(-1)
    return torch.stack([(best + number) % self.log_probs.shape[-1] for number in range(num_samples)])


def train(folder: Path, name: str, method: str, parts: int = 1) -> Path:
    run = folder / f"{name}-{method}"
    config = BaselineTrainingConfig(
        out=str(run),
        model={"type": method, **METHODS[method]},  # type: ignore[arg-type]  # a method by its name
        image_size=[16, 16],
        num_channels=1,
        network={"type": "conv", "hidden_size": 8, "residual_size": 4, "num_residual_blocks": 1},  # type: ignore[arg-type]
        steps=4,
        batch_size=8,
        gradient_accumulation_steps=parts,
        learning_rate=1e-3,
        warmup_steps=1,
        log_every=2,
        eval_every=2,
        checkpoint_every=4,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DiagonalGaussian, "noise", noise)
        patch.setattr(CategoricalPosterior, "sample", sample)
        patch.setattr(image_tasks, "EVALUATED_AT_ONCE", 4)
        train_baseline(config, *open_splits(str(folder / "images"), test_share=0.25))
    return run


def worker(rank: int, folder: Path) -> None:
    for method in METHODS:
        connect(rank, folder)
        train(folder, "two", method, parts=2)


def test_training_and_evaluation_are_those_of_one_process(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(40):
        path = tmp_path / "images" / "abc"[number % 3] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (4, 4), dtype=np.uint8).repeat(4, 0).repeat(4, 1)).save(path)
    run_two_processes(worker, tmp_path)
    for method in METHODS:
        one = train(tmp_path, "one", method)
        for other in (tmp_path / f"two-{method}", train(tmp_path, "parts", method, parts=4)):
            weights, others = (load_file(run / "model" / "model.safetensors") for run in (one, other))
            for key, tensor in weights.items():
                torch.testing.assert_close(tensor, others[key], rtol=1e-4, atol=1e-5, msg=f"{other.name} {key}")
            for alone, together in zip(rows(one), rows(other), strict=True):
                assert alone.pop("split") == together.pop("split")
                assert alone == pytest.approx(together, rel=1e-4), other.name
