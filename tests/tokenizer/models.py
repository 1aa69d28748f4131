"""Tiny tokenizers, images for them, and whether two are the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig

SMALL = {"type": "conv", "hidden_size": 8, "residual_size": 4, "num_residual_blocks": 1}
METHODS = ["ema", "vq", "gumbel"]


def make(method: str = "ema", num_channels: int = 1, **options: Any) -> VQTokenizer:
    torch.manual_seed(0)
    quantizer = {"type": method, "codebook_size": 16, "code_dim": 4, **options}
    return VQTokenizer(
        VQTokenizerConfig(image_size=16, num_channels=num_channels, network=SMALL, quantizer=quantizer)
    ).eval()


def pixels(count: int = 3, channels: int = 1) -> torch.Tensor:
    return torch.rand(count, channels, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def same_state(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return list(first) == list(second) and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name]) for name in first
    )
