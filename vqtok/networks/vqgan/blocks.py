"""The parts of a VQGAN: residual block, attention, halving and doubling, Haar wavelets."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqtok.networks.vqgan.norms import Norm, norm_silu, order

__all__ = ["AttentionBlock", "Downsample", "ResidualBlock", "Upsample", "from_haar", "to_haar"]


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
        branch: Tensor = self.conv1(norm_silu(self.norm1, features, codes))
        branch = self.conv2(self.dropout(norm_silu(self.norm2, branch, codes)))
        if self.nin_shortcut is None:
            return branch.add_(features)  # no gradient needs what a convolution gave, so its memory is taken
        shortcut: Tensor = self.nin_shortcut(branch if self.of_output else features)
        return shortcut.add_(branch)


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

    def forward(self, features: Tensor, codes: Tensor | None = None) -> Tensor:
        if self.how == "average":
            return F.avg_pool2d(features, 2)
        half: Tensor = self.conv(F.pad(features, (0, 1, 0, 1)) if self.how == "asymmetric" else features)
        return half


class Upsample(nn.Module):
    """(B, C, H, W) -> (B, C, 2 H, 2 W); `how` as `VQGANOptions.upsample` has it.

    Each output of a 3x3 convolution of nearest neighbours sees only 2 x 2 different inputs. As a transposed convolution
    over the inputs themselves it needs 4 products for each rather than 9, and the doubled features are never made.
    """

    def __init__(self, channels: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv = nn.Conv2d(channels, channels if how == "nearest" else 4 * channels, kernel_size=3, padding=1)

    def forward(self, features: Tensor, codes: Tensor | None = None) -> Tensor:
        if self.how == "nearest":
            kernel = of_nearest(self.conv.weight).contiguous(memory_format=order(features))
            return F.conv_transpose2d(features, kernel, self.conv.bias, stride=2, padding=1)
        # Of the four times C channels the first C are top left, the next top right, and so on.
        parts: Tensor = self.conv(features).unflatten(1, (2, 2, -1))  # (B, 2, 2, C, H, W)
        return parts.permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)


def of_nearest(weight: Tensor) -> Tensor:
    """The kernel of the transposed convolution that is nearest neighbours by two and a convolution with this one.

    (O, I, 3, 3) -> (I, O, 4, 4), for stride 2 and padding 1.
    """
    kernel = weight.permute(1, 2, 3, 0)  # outputs last, so that the sums read and write rows
    for side in (1, 2):
        first, middle, last = kernel.unbind(side)
        kernel = torch.stack([last, middle + last, first + middle, first], side)
    return kernel.permute(0, 3, 1, 2)


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
