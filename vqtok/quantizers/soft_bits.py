"""Soft assignments to codes that are bits, their entropies and their mean, with gradients written out.

With l_d the log-odds of bit d, p_d = sigmoid(l_d) and q_d = 1 - p_d, a code has p(c) = prod_d (p_d or q_d, by its bit):

    H(p) = sum_d h(l_d)                                  dh / dl_d = -l_d p_d q_d
    sum_n p_n = V U^T, by high and by low bits of c      dp(c) / dl_d = p(c) q_d or -p(c) p_d, by bit d of c

U and V, the assignments to either half of the bits, have about sqrt(K) rows each. No sum is taken whose terms cancel
where a bit is all but sure, and no number gets so small that it is no longer normal: on those a CPU is many times
slower, and latents that are sure of most of their bits are full of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import threshold

__all__ = ["assignments", "bit_entropy", "sum_of_assignments"]

NOTHING = 2e-19  # about the smallest number whose square is still normal in float32; less than it counts as 0
SURE = 80.0  # log-odds beyond which the other side is nothing at all


def bit_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of a bit with these log-odds, element by element."""
    result: Tensor = BitEntropy.apply(logits)
    return result


def sum_of_assignments(logits: Tensor) -> Tensor:
    """sum_n p_n(c) of all codes: log-odds (D, N), the least significant bit first -> (2^D,)."""
    result: Tensor = SumOfAssignments.apply(logits)
    return result


def assignments(ones: Tensor, zeros: Tensor) -> Tensor:
    """p(c) of all codes of some bits, from probabilities (d, N) that a bit is 1 and that it is 0 -> (2^d, N)."""
    if len(ones) == 0:
        return ones.new_ones(1, ones.shape[1])
    if len(ones) == 1:
        return torch.cat([zeros, ones])
    half = len(ones) // 2
    low, high = assignments(ones[:half], zeros[:half]), assignments(ones[half:], zeros[half:])
    return threshold((high[:, None, :] * low[None, :, :]).flatten(0, 1), NOTHING, 0.0)


def both_sides(logits: Tensor) -> tuple[Tensor, Tensor]:
    """sigmoid(l) and sigmoid(-l), either of them 0 where it is less than `NOTHING`."""
    logits = logits.clamp(-SURE, SURE)
    return threshold(torch.sigmoid(logits), NOTHING, 0.0), threshold(torch.sigmoid(-logits), NOTHING, 0.0)


def tensors_of(ctx: Any) -> tuple[Tensor, ...]:
    """What a forward pass saved for this backward pass."""
    saved: tuple[Tensor, ...] = ctx.saved_tensors
    return saved


class BitEntropy(Function):
    """h(l) = log(1 + exp(-|l|)) + |l| sigmoid(-|l|), which has no terms that cancel."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        logits = logits.clamp(-SURE, SURE)
        distance = logits.abs()
        odds = torch.exp(-distance)
        other = odds / (1 + odds)
        ctx.save_for_backward(logits * other * (other - 1))
        return torch.log1p(odds) + distance * other

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (slope,) = tensors_of(ctx)
        return gradient * slope


class SumOfAssignments(Function):
    """V U^T and, with G the gradient towards it, q_d sum(R where bit d is 1) - p_d sum(R where it is 0).

    R holds each code's part, G p(c), summed over the codes that share its half of the bits: V (G U) or U (G^T V).
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        half = len(logits) // 2
        ones, zeros = both_sides(logits)
        low, high = assignments(ones[:half], zeros[:half]), assignments(ones[half:], zeros[half:])
        ctx.save_for_backward(ones, zeros, low, high)
        return (high @ low.t()).flatten()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        ones, zeros, low, high = tensors_of(ctx)
        gradient = gradient.view(len(high), len(low))
        parts = [by_bit((gradient.t() @ high).mul_(low)), by_bit((gradient @ low).mul_(high))]
        where_one, where_zero = (torch.cat(sides) for sides in zip(*parts, strict=True))
        return zeros * where_one - ones * where_zero


def by_bit(parts: Tensor) -> tuple[Tensor, Tensor]:
    """Sums (d, N) over the codes whose bit is 1, and over those whose bit is 0, of numbers by code (2^d, N)."""
    count = len(parts).bit_length() - 1
    places = torch.arange(count, device=parts.device)[:, None]
    bits = (torch.arange(len(parts), device=parts.device) >> places & 1).to(parts.dtype)
    return bits @ parts, (1 - bits) @ parts
