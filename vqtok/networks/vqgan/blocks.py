"""The parts of a VQGAN: norms, residual block, attention, halving and doubling, Haar wavelets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "AdaptiveGroupNorm",
    "AttentionBlock",
    "Downsample",
    "GroupNorm",
    "Norm",
    "ResidualBlock",
    "SpatialNorm",
    "Upsample",
    "from_haar",
    "to_haar",
]

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


class ResidualBlock(nn.Module):
    """x + (norm, SiLU, 3x3 convolution, norm, SiLU, 3x3 convolution); (B, before, H, W) -> (B, after, H, W).

    Args:
        before, after: channels.
        norm: makes the norms.
        bias: whether the convolutions have one.
        of_output: where the channels change, the shortcut is a convolution of what was computed, not of x, as in
            MaskGIT's code: x itself is dropped.
        dropout: share of what the second norm gives that training sets to zero.
    """

    def __init__(self, before: int, after: int, norm: Norm, *, bias: bool, of_output: bool, dropout: float) -> None:
        super().__init__()
        self.norm1 = norm(before)
        self.conv1 = nn.Conv2d(before, after, kernel_size=3, padding=1, bias=bias)
        self.norm2 = norm(after)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(after, after, kernel_size=3, padding=1, bias=bias)
        self.of_output = of_output
        self.nin_shortcut = (
            None if before == after else nn.Conv2d(after if of_output else before, after, kernel_size=1, bias=bias)
        )

    def forward(self, features: Tensor, codes: Tensor | None = None) -> Tensor:
        branch = self.conv1(F.silu(self.norm1(features, codes)))
        branch = self.conv2(self.dropout(F.silu(self.norm2(branch, codes))))
        if self.nin_shortcut is not None:
            features = self.nin_shortcut(branch if self.of_output else features)
        total: Tensor = features + branch
        return total


class AttentionBlock(nn.Module):
    """x + attention of one head among all positions; (B, C, H, W) -> the same shape."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, kernel_size=1) for _ in range(4))

    def forward(self, features: Tensor, codes: Tensor | None = None) -> Tensor:
        normal = self.norm(features, codes)
        query, key, value = (
            layer(normal).flatten(2).transpose(1, 2).unsqueeze(1) for layer in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)  # (B, 1, H * W, C)
        mixed = mixed.squeeze(1).transpose(1, 2).unflatten(2, features.shape[-2:])
        total: Tensor = features + self.proj_out(mixed)
        return total


class Downsample(nn.Module):
    """(B, C, H, W) -> (B, C, H / 2, W / 2); `how` as `VQGANOptions.downsample` has it."""

    def __init__(self, channels: int, how: str) -> None:
        super().__init__()
        self.how = how
        if how != "average":
            self.conv = nn.Conv2d(channels, channels, kernel_size=3, stride=2, padding=int(how == "symmetric"))

    def forward(self, features: Tensor) -> Tensor:
        if self.how == "average":
            return F.avg_pool2d(features, 2)
        half: Tensor = self.conv(F.pad(features, (0, 1, 0, 1)) if self.how == "asymmetric" else features)
        return half


class Upsample(nn.Module):
    """(B, C, H, W) -> (B, C, 2 H, 2 W); `how` as `VQGANOptions.upsample` has it."""

    def __init__(self, channels: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv = nn.Conv2d(channels, channels if how == "nearest" else 4 * channels, kernel_size=3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        if self.how == "nearest":
            twice: Tensor = self.conv(F.interpolate(features, scale_factor=2.0, mode="nearest"))
            return twice
        # Of the four times C channels the first C are top left, the next top right, and so on.
        parts: Tensor = self.conv(features).unflatten(1, (2, 2, -1))  # (B, 2, 2, C, H, W)
        return parts.permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)


def to_haar(images: Tensor, patch: int) -> Tensor:
    """Haar wavelets of images, (B, C, H, W) -> (B, C * patch^2, H / patch, W / patch), for a power of two.

    Each step gives the means and the differences, by four, of blocks of 2 x 2 values: C means, then as many differences
    of top and bottom, of left and right, and of the diagonals. Cosmos Tokenizer, NVIDIA 2024.
    """
    for _ in range(patch.bit_length() - 1):
        left, right = images[..., 0::2], images[..., 1::2]
        low, high = left + right, left - right
        quarters = [half[..., 0::2, :] + sign * half[..., 1::2, :] for half in (low, high) for sign in (1, -1)]
        images = torch.cat(quarters, dim=1) / 4
    return images


def from_haar(wavelets: Tensor, patch: int) -> Tensor:
    """The images of their Haar wavelets, back from what `to_haar` gives."""
    for _ in range(patch.bit_length() - 1):
        mean, vertical, horizontal, diagonal = wavelets.chunk(4, dim=1)
        low = torch.stack([mean + vertical, mean - vertical], dim=3).flatten(2, 3)
        high = torch.stack([horizontal + diagonal, horizontal - diagonal], dim=3).flatten(2, 3)
        wavelets = torch.stack([low + high, low - high], dim=4).flatten(3, 4)
    return wavelets
