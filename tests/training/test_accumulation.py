"""A batch in parts is the step of the whole batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.runs import make, rows
from vqtok.data import ImageSource
from vqtok.training.tokenizer import train_tokenizer

STAGES = {"type": "residual", "num_codebooks": 2}
MOVING = {"codebook_size": 16, "code_dim": 4, "restart_threshold": 0.5, "decay": 0.5}
METHODS: dict[str, dict[str, Any]] = {
    "ema": {"type": "ema", **MOVING},
    "kmeans": {"type": "vq", "init": "kmeans", **MOVING},
    "normal": {"type": "ema", "init": "normal", **MOVING},
    "product": {"type": "product", "each": {"type": "vq", **MOVING, "code_dim": 2}},
    "residual": {**STAGES, "each": {"type": "ema", **MOVING}},
    "shared": {**STAGES, "shared": True, "each": {"type": "vq", **MOVING}},
    "simvq": {"type": "simvq", "codebook_size": 16, "code_dim": 4},
}


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_in_four_parts_is_the_same_step(
    method: str, tmp_path: Path, sources: tuple[ImageSource, ImageSource]
) -> None:
    """Where the codes start, moving averages and restarts included, and across the end of an epoch.

    Thirty images are three steps of eight, and six images that the epoch leaves out however its batches are split.
    """
    weights = []
    for parts in (1, 4):
        run = tmp_path / str(parts)
        changes = {"steps": 5, "batch_size": 8, "gradient_accumulation_steps": parts, "quantizer": METHODS[method]}
        train_tokenizer(make(run, **changes), *sources)
        weights.append(load_file(run / "model" / "model.safetensors"))
        weights[-1] |= {"rows": torch.tensor([row["loss"] for row in rows(run, "train")])}
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-4, atol=1e-4, msg=name)
