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
        if has_kernel(features):
            normal: Tensor = Normalized.apply(features, self.weight, self.bias, self.num_groups, False)
            return normal
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
        scale = self.gamma((rows.var(dim=2, correction=min(1, rows.shape[2] - 1)) + EPSILON).sqrt())
        shift = self.beta(rows.mean(dim=2))
        scaled: Tensor = self.norm(features) * scale[:, :, None, None] + shift[:, :, None, None]
        return scaled


Norm = Callable[[int], GroupNorm | SpatialNorm]
"""Makes the norm of so many channels."""


def norm_silu(norm: nn.Module, features: Tensor, codes: Tensor | None) -> Tensor:
    """SiLU of what a norm gives, in memory of the norm where that may be."""
    if isinstance(norm, GroupNorm) and has_kernel(features):
        activated: Tensor = Normalized.apply(features, norm.weight, norm.bias, norm.num_groups, True)
        return activated
    in_place = not torch.is_grad_enabled() and not torch.compiler.is_compiling()  # compilers decide that themselves
    return F.silu(norm(features, codes), inplace=in_place)


def has_kernel(features: Tensor) -> bool:
    """Whether torch has a backward pass of group norm as one kernel where they are. Compiled code has no use for it."""
    return features.device.type in ("cpu", "cuda") and not torch.compiler.is_compiling()


class Normalized(torch.autograd.Function):
    """Group norm, and SiLU of it, that keeps only its input for the backward pass, which computes the norm again.

    Of norm, SiLU and convolution a third less is kept, and memory that is not newly allocated is time saved.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, silu: bool
    ) -> Tensor:
        ctx.save_for_backward(features, weight, bias)
        ctx.groups, ctx.silu = groups, silu
        normal, _, _ = normalized(float32(features), in_float32(weight), in_float32(bias), groups)
        return (F.silu(normal, inplace=True) if silu else normal).to(features.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        kept = ctx.saved_tensors  # asked for once, as gradient checkpointing demands
        features, weight, bias = float32(kept[0]), in_float32(kept[1]), in_float32(kept[2])
        normal, mean, deviation = normalized(features, weight, bias, ctx.groups)
        of_norm = gradient.to(normal)
        if ctx.silu:
            of_norm = torch.ops.aten.silu_backward.grad_input(of_norm, normal, grad_input=normal)
        of_norm = of_norm.contiguous(memory_format=order(features))
        asked = [True, *ctx.needs_input_grad[1:3]]  # in channels_last torch 2.13 ends the process without the first
        gradients = torch.ops.aten.native_group_norm_backward(
            of_norm, features, mean, deviation, weight, *sizes(features), ctx.groups, asked
        )
        typed = (each if each is None else each.to(of.dtype) for each, of in zip(gradients, kept, strict=True))
        return (*typed, None, None)


def normalized(
    features: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Group norm with the means and the inverse deviations of the groups (B, groups), which its backward pass needs.

    In channels_last torch adds up numbers and their squares one by one on a CPU, and of a white image of 256 x 256 the
    norm is wrong by 1e-2. Here it is by 1e-6, as in the other order, for 32 ms rather than 24 (128 channels, one core).
    """
    batch, channels, positions = sizes(features)
    if order(features) != torch.channels_last:
        return torch.native_group_norm(features, weight, bias, batch, channels, positions, groups, EPSILON)
    rows = features.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H * W, C)
    means = rows.mean(dim=1, keepdim=True)
    squares = torch.zeros_like(means)
    for some in rows.split(max(1, NUMBERS_AT_ONCE // channels), dim=1):
        squares += (some - means).square_().sum(dim=1, keepdim=True)
    within = (squares / positions).view(batch, groups, -1).mean(dim=2)
    between, mean = torch.var_mean(means.view(batch, groups, -1), dim=2, correction=0)
    deviation = (within + between + EPSILON).rsqrt()
    scale, shift = (each.repeat_interleave(channels // groups, dim=1) for each in (deviation, -mean * deviation))
    if weight is not None and bias is not None:
        scale, shift = scale * weight, shift * weight + bias
    return torch.addcmul(shift[:, :, None, None], features, scale[:, :, None, None]), mean, deviation


NUMBERS_AT_ONCE = 2**18
"""Of features whose squares are summed while they are in the cache."""


def in_float32(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else weight.float()


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
