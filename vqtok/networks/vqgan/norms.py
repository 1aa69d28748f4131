"""Norms of a VQGAN, always in float32, and the SiLU that follows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["AdaptiveGroupNorm", "GroupNorm", "Norm", "SpatialNorm", "norm_silu", "order"]

EPSILON = 1e-6


class GroupNorm(nn.GroupNorm):
    """Group norm in float32, whatever autocast or the type of the weights is; (B, C, H, W) of any float type."""

    def __init__(self, channels: int, groups: int, *, affine: bool = True) -> None:
        super().__init__(groups, channels, eps=EPSILON, affine=affine)

    def forward(self, features: Tensor, codes: Tensor | None = None) -> Tensor:
        """`codes` are passed over, so that norms can take each other's place."""
        if features.dtype == torch.float32:
            return super().forward(features)
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return F.group_norm(features.float(), self.num_groups, weight, bias, self.eps).to(features.dtype)


class SpatialNorm(nn.Module):
    """Group norm, scaled and shifted at each position by the codes there: MoVQ, Zheng et al. 2022, arXiv:2209.09002.

    Args:
        channels: C of the features.
        groups: of the norm.
        code_channels: of the codes, which are brought to the size of the features by nearest neighbours.
    """

    def __init__(self, channels: int, groups: int, code_channels: int) -> None:
        super().__init__()
        self.norm_layer = GroupNorm(channels, groups)
        self.conv_y = nn.Conv2d(code_channels, channels, kernel_size=1)
        self.conv_b = nn.Conv2d(code_channels, channels, kernel_size=1)

    def forward(self, features: Tensor, codes: Tensor | None) -> Tensor:
        assert codes is not None
        there = F.interpolate(codes, size=features.shape[-2:], mode="nearest")
        scaled: Tensor = self.norm_layer(features) * self.conv_y(there) + self.conv_b(there)
        return scaled


class AdaptiveGroupNorm(nn.Module):
    """Group norm, scaled by the standard deviation of the codes of an image and shifted by their mean.

    Open-MAGVIT2, Luo et al. 2024, arXiv:2409.04410, section 3.1; the variance is the unbiased one.
    """

    def __init__(self, channels: int, groups: int, code_channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm(channels, groups, affine=False)
        self.gamma = nn.Linear(code_channels, channels)
        self.beta = nn.Linear(code_channels, channels)

    def forward(self, features: Tensor, codes: Tensor) -> Tensor:
        rows = codes.flatten(2)
        scale = self.gamma((rows.var(dim=2) + EPSILON).sqrt())
        shift = self.beta(rows.mean(dim=2))
        scaled: Tensor = self.norm(features) * scale[:, :, None, None] + shift[:, :, None, None]
        return scaled


Norm = Callable[[int], GroupNorm | SpatialNorm]
"""Makes the norm of so many channels."""


def norm_silu(norm: nn.Module, features: Tensor, codes: Tensor | None) -> Tensor:
    """SiLU of what a norm gives, in memory of the norm where that may be.

    Compiled code has no use for this: the compiler itself decides what is kept and what is written over.
    """
    if torch.compiler.is_compiling():
        return F.silu(norm(features, codes))
    if isinstance(norm, GroupNorm) and features.device.type in KERNELS:
        activated: Tensor = NormalizedSiLU.apply(features, norm.weight, norm.bias, norm.num_groups)
        return activated
    return F.silu(norm(features, codes), inplace=not torch.is_grad_enabled())


KERNELS = ("cpu", "cuda")
"""Devices on which torch has a backward pass of group norm as one kernel."""


class NormalizedSiLU(torch.autograd.Function):
    """SiLU of group norm that keeps only its input for the backward pass, which computes the norm again.

    Of norm, SiLU and convolution a third less is kept, and memory that is not newly allocated is time saved.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(features, weight, bias)
        ctx.groups = groups
        normal, _, _ = normalized(float32(features), weight.float(), bias.float(), groups)
        return F.silu(normal, inplace=True).to(features.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        kept = ctx.saved_tensors  # asked for once, as gradient checkpointing demands
        features, (weight, bias) = float32(kept[0]), (each.float() for each in kept[1:])
        normal, mean, deviation = normalized(features, weight, bias, ctx.groups)
        of_norm = torch.ops.aten.silu_backward.grad_input(gradient.float(), normal, grad_input=normal)
        asked = list(ctx.needs_input_grad[:3])
        gradients = torch.ops.aten.native_group_norm_backward(
            of_norm, features, mean, deviation, weight, *sizes(features), ctx.groups, asked
        )
        return (*(each if each is None else each.to(of.dtype) for each, of in zip(gradients, kept, strict=True)), None)


def normalized(features: Tensor, weight: Tensor, bias: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Group norm with the means and the inverse deviations of the groups, which its backward pass needs."""
    batch, channels, positions = sizes(features)
    return torch.native_group_norm(features, weight, bias, batch, channels, positions, groups, EPSILON)


def sizes(features: Tensor) -> tuple[int, int, int]:
    """B, C and H * W."""
    batch, channels, height, width = features.shape
    return batch, channels, height * width


def float32(features: Tensor) -> Tensor:
    """Features as the group norm of their device takes them: in channels_last on a CPU alone."""
    known = order(features) if features.device.type == "cpu" else torch.contiguous_format
    return features.float().contiguous(memory_format=known)


def order(features: Tensor) -> torch.memory_format:
    """Whether features (B, C, H, W) lie in memory as channels_last or not."""
    last = features.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
