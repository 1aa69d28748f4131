"""A batch in parts is the step of the whole batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.runs import make, rows
from vqtok.data import ImageSource
from vqtok.training.tokenizer import train_tokenizer


@pytest.mark.parametrize("method", ["ema", "vq"])
def test_a_batch_in_four_parts_is_the_same_step(
    method: str, tmp_path: Path, sources: tuple[ImageSource, ImageSource]
) -> None:
    """Moving averages and restarts included; where codes start on data they start on the first part."""
    quantizer = {"type": method, "codebook_size": 16, "code_dim": 4, "init": "normal"}
    quantizer |= {"restart_threshold": 0.5, "decay": 0.5}
    weights = []
    for parts in (1, 4):
        run = tmp_path / str(parts)
        changes = {"steps": 3, "batch_size": 8, "gradient_accumulation_steps": parts, "quantizer": quantizer}
        train_tokenizer(make(run, **changes), *sources)
        weights.append(load_file(run / "model" / "model.safetensors"))
        weights[-1] |= {"rows": torch.tensor([row["loss"] for row in rows(run, "train")])}
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-5, atol=1e-5, msg=name)
