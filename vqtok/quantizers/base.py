"""What every quantizer is: latents in, the vectors of a finite codebook out, and the indices of those vectors.

Shapes, here and in every file of this package: `B` images, `D` code dimension, `h w` latent grid, `K` codes per
codebook, `Q` codebooks per position, `N = B*h*w` rows when the grid is flattened.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

__all__ = ["Quantizer", "QuantizerOutput", "from_rows", "perplexity", "straight_through", "to_rows"]


@dataclass(frozen=True, kw_only=True)
class QuantizerOutput:
    """What a quantizer makes of latents.

    Attributes:
        quantized: (B, D, h, w), float32; carries the gradient back to the latents.
        codes: int64 (B, h, w), or (B, h, w, Q) where Q > 1.
        loss: scalar, the weighted sum of the quantizer's own loss terms.
        metrics: every term of `loss` before its weight, and what else is worth a curve; detached scalars.
    """

    quantized: Tensor
    codes: Tensor
    loss: Tensor
    metrics: dict[str, Tensor]


class Quantizer(nn.Module, ABC):
    """The contract. `decode(encode(z))` equals the `quantized` of a forward pass over `z` from the same state exactly.

    Arithmetic is float32 whatever autocast says. A method that learns its codebook while it is used (a moving
    average, a restart) does so at the end of a forward pass in training mode, after the codes were looked up.
    """

    codebook_size: int
    num_codebooks: int = 1
    code_dim: int

    training_state: ClassVar[tuple[str, ...]] = ()
    """Names of tensors that training keeps and that decide no code, such as moving averages."""

    @abstractmethod
    def forward(self, latents: Tensor) -> QuantizerOutput:
        """Quantize latents (B, D, h, w) and say what that costs."""

    @abstractmethod
    def encode(self, latents: Tensor) -> Tensor:
        """Codes of latents (B, D, h, w): int64 (B, h, w), or (B, h, w, Q) where Q > 1."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Vectors of codes: float32 (B, D, h, w)."""

    @abstractmethod
    def reset_parameters(self) -> None:
        """Fill every parameter and buffer with its starting value."""


def to_rows(latents: Tensor) -> Tensor:
    """(B, D, h, w) of any float type -> float32 (N, D)."""
    return latents.float().permute(0, 2, 3, 1).reshape(-1, latents.shape[1])


def from_rows(rows: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """(N, D) -> (B, D, h, w), where `grid` is (B, h, w)."""
    return rows.view(*grid, -1).permute(0, 3, 1, 2)


def straight_through(latents: Tensor, quantized: Tensor) -> Tensor:
    """The value of `quantized` with the gradient of `latents`: z + sg[e - z] (van den Oord et al. 2017, section 3.2).

    Written as sg[e] + (z - sg[z]), whose second term is exactly zero, so that the value is e to the last bit.
    """
    return quantized.detach() + (latents - latents.detach())


def perplexity(counts: Tensor) -> Tensor:
    """exp of the entropy of how often each code was used; counts (K,), K when all are used alike, 1 when one is."""
    shares = counts / counts.sum().clamp(min=1)
    return torch.exp(torch.special.entr(shares).sum())
