"""Small runs of the training loop, and what they leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from vqtok.training import loop
from vqtok.training.config import TokenizerTrainingConfig
from vqtok.training.resolution import resolve_config

TIMING = "images_per_second"


def make(run: Path, method: str = "ema", **changes: Any) -> TokenizerTrainingConfig:
    """Eight steps of four images for a tiny network; what is given goes over that."""
    values: dict[str, Any] = {
        "out": str(run),
        "image_size": [16, 16],
        "num_channels": 1,
        "network": {"type": "conv", "hidden_size": 8, "residual_size": 4, "num_residual_blocks": 1},
        "quantizer": {"type": method, "codebook_size": 16, "code_dim": 4},
        "steps": 8,
        "batch_size": 4,
        "learning_rate": 3e-3,
        "warmup_steps": min(2, changes.get("steps", 8)),
        "log_every": 2,
        "eval_every": 4,
        "checkpoint_every": 4,
        "usage_window": 12,  # three steps, so that runs of eight go around
    }
    return TokenizerTrainingConfig(**(values | changes))


def resolve(file: dict[str, Any] | None = None, folder: Path | None = None, **parts: Any) -> TokenizerTrainingConfig:
    """The configuration of a run from its parts, the file given as what is in it."""
    if file is not None:
        assert folder is not None
        (folder / "given.yaml").write_text(yaml.safe_dump(file, sort_keys=False))
        parts["file"] = folder / "given.yaml"
    return resolve_config(TokenizerTrainingConfig, **({"base": {"out": "runs/x"}} | parts))


def rows(run: Path, split: str | None = None) -> list[dict[str, Any]]:
    """What metrics.jsonl says, of one split or of all, without the speed."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != TIMING} for row in found if split in (None, row["split"])]


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, action: Any) -> None:
    """Do something, once, at the beginning of a step."""
    learning_rate_at, actions = loop.learning_rate_at, [action]

    def acting(done: int, config: TokenizerTrainingConfig) -> float:
        if done == step - 1 and actions:
            actions.pop()()
        return learning_rate_at(done, config)

    monkeypatch.setattr(loop, "learning_rate_at", acting)


def differences(one: Path, other: Path, step: int = 8) -> list[str]:
    """What is not the same to the last bit in two runs: weights, buffers, optimizers, random numbers."""
    found = []
    for name in ("model/model.safetensors", f"checkpoints/step-{step:06d}/model.safetensors"):
        first, second = load_file(one / name), load_file(other / name)
        assert list(first) == list(second)
        found += [key for key in first if not torch.equal(first[key], second[key])]
    for name in ("optimizer.bin", "optimizer_1.bin", "random_states_0.pkl"):
        states = [(run / "checkpoints" / f"step-{step:06d}" / name).read_bytes() for run in (one, other)]
        found += [name] if states[0] != states[1] else []
    return found


class PowerCut(BaseException):
    """Nothing that is caught on the way."""


def starting(run: Path, start: Path | str, **changes: Any) -> TokenizerTrainingConfig:
    """A run as `make` has it, but from the weights of a tokenizer and with its network, quantizer and images."""
    loop = make(run).model_dump(exclude={"network", "quantizer", "image_size", "num_channels", "resample"})
    return resolve_config(TokenizerTrainingConfig, options=loop | {"init_from": str(start)} | changes)
