"""Tiny tokenizers of every likelihood, and priors over their codes with opinions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vqtok.lossless import as_image
from vqtok.priors import Prior, PriorBinding, build_prior
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig

PRIORS = {
    "pixelcnn": {"hidden_size": 8, "num_layers": 2, "kernel_size": 3},
    "transformer": {"hidden_size": 16, "num_layers": 2, "num_heads": 2},
}


def make_tokenizer(
    likelihood: dict[str, Any], *, num_channels: int = 3, seed: int = 0, **quantizer: Any
) -> VQTokenizer:
    """8 x 8 images to 2 x 2 grids; weights are large enough that no two pixels have one distribution."""
    torch.manual_seed(seed)
    config = VQTokenizerConfig(
        image_size=8,
        num_channels=num_channels,
        network={"type": "conv", "hidden_size": 8, "residual_size": 4, "num_residual_blocks": 1},
        quantizer=quantizer or {"type": "vq", "codebook_size": 16, "code_dim": 4},
        likelihood=likelihood,
    )
    return VQTokenizer(config).eval()


def make_prior(tokenizer: VQTokenizer, kind: str, **changes: Any) -> Prior:
    torch.manual_seed(0)
    binding = PriorBinding(
        **{  # type: ignore[arg-type]
            "fingerprint": tokenizer.fingerprint,
            "grid": tokenizer.grid,
            "codebook_size": tokenizer.codebook_size,
            "num_codebooks": tokenizer.num_codebooks,
            "label_names": ("cat", "dog"),
        }
        | changes
    )
    prior = build_prior(binding, {"type": kind, **PRIORS[kind]})
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return prior.eval()


def noise(height: int = 8, width: int = 8, channels: int = 3, *, seed: int = 0) -> Any:
    """An image of noise, whose pixels hold every level."""
    return as_image(np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8))
