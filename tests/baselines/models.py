"""Tiny untrained baselines, and images for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vqtok.baselines import BASELINES, Baseline, build_baseline

__all__ = ["LABELS", "METHODS", "WITH_PRIOR", "make", "make_labels", "pixels"]

METHODS = list(BASELINES)
WITH_PRIOR = [method for method in METHODS if method != "autoencoder"]
LABELS = ["cat", "dog", "eel"]
SMALL = {"vimco": {"num_samples": 3}, "likelihood-ratio": {"num_samples": 2}, "iwae": {"num_samples": 3}}
CODES = {"num_codebooks": 2, "codebook_size": 5, "code_dim": 3}


def make(method: str, *, seed: int = 0, likelihood: Any = "logistic", num_channels: int = 1, **options: Any) -> Any:
    """16x16 images to a grid of 4x4."""
    torch.manual_seed(seed)
    small = SMALL.get(method, {}) | (CODES if method in ("vimco", "likelihood-ratio") else {})
    model: Baseline = build_baseline(
        {"type": method, **small, **options},
        image_size=16,
        num_channels=num_channels,
        network={"type": "conv", "hidden_size": 8, "residual_size": 4, "num_residual_blocks": 1},
        likelihood=likelihood,
        label_names=LABELS if method == "cvae" else None,
    )
    return model.eval()


def pixels(count: int = 3, *, num_channels: int = 1, seed: int = 1) -> Tensor:
    """Random images of 8 bits in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, num_channels, 16, 16), generator=generator) / 127.5 - 1


def make_labels(method: str, count: int = 3) -> Tensor | None:
    """Classes for images, where the method takes them."""
    return torch.arange(count) % len(LABELS) if method == "cvae" else None
