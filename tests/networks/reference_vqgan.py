"""The networks of published tokenizers written out as equations over their weights, apart from the modules under test.

Sources: taming-transformers (Esser et al. 2021), Open-MAGVIT2 (Luo et al. 2024), MaskGIT (Chang et al. 2022), Cosmos
Tokenizer (NVIDIA 2024), as their published code computes them. Weights are named as in taming-transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, group_norm, linear, pad, silu

Weights = Mapping[str, Tensor]
GROUPS = 32


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return group_norm(x, GROUPS, w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)


def conv(w: Weights, name: str, x: Tensor, **options: int) -> Tensor:
    weight = w[f"{name}.weight"]
    return conv2d(x, weight, w.get(f"{name}.bias"), **({"padding": weight.shape[-1] // 2} | options))


def residual(w: Weights, name: str, x: Tensor, *, drops_input: bool = False) -> Tensor:
    h = conv(w, f"{name}.conv1", silu(norm(w, f"{name}.norm1", x)))
    h = conv(w, f"{name}.conv2", silu(norm(w, f"{name}.norm2", h)))
    if f"{name}.nin_shortcut.weight" in w:
        x = conv(w, f"{name}.nin_shortcut", h if drops_input else x)
    return x + h


def attention(w: Weights, name: str, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    h = norm(w, f"{name}.norm", x)
    q, k, v = (conv(w, f"{name}.{part}", h).reshape(batch, channels, -1) for part in "qkv")
    weights = torch.einsum("bci,bcj->bij", q, k) / channels**0.5
    mixed = torch.einsum("bij,bcj->bci", weights.softmax(dim=2), v).reshape(batch, channels, height, width)
    return x + conv(w, f"{name}.proj_out", mixed)


def asymmetric(w: Weights, name: str, x: Tensor) -> Tensor:
    return conv2d(pad(x, (0, 1, 0, 1)), w[f"{name}.conv.weight"], w[f"{name}.conv.bias"], stride=2)


def nearest(w: Weights, name: str, x: Tensor) -> Tensor:
    return conv(w, f"{name}.conv", x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))


def taming_encoder(w: Weights, pixels: Tensor, levels: int, blocks: int) -> Tensor:
    h = conv(w, "conv_in", pixels)
    for level in range(levels):
        for block in range(blocks):
            h = residual(w, f"down.{level}.block.{block}", h)
            if f"down.{level}.attn.{block}.q.weight" in w:
                h = attention(w, f"down.{level}.attn.{block}", h)
        if level < levels - 1:
            h = asymmetric(w, f"down.{level}.downsample", h)
    h = residual(w, "mid.block_2", attention(w, "mid.attn_1", residual(w, "mid.block_1", h)))
    return conv(w, "quant_conv", conv(w, "conv_out", silu(norm(w, "norm_out", h))))


def taming_decoder(w: Weights, codes: Tensor, levels: int, blocks: int) -> Tensor:
    h = conv(w, "conv_in", conv(w, "post_quant_conv", codes))
    h = residual(w, "mid.block_2", attention(w, "mid.attn_1", residual(w, "mid.block_1", h)))
    for level in reversed(range(levels)):
        for block in range(blocks + 1):
            h = residual(w, f"up.{level}.block.{block}", h)
            if f"up.{level}.attn.{block}.q.weight" in w:
                h = attention(w, f"up.{level}.attn.{block}", h)
        if level > 0:
            h = nearest(w, f"up.{level}.upsample", h)
    return conv(w, "conv_out", silu(norm(w, "norm_out", h)))


def plain_encoder(
    w: Weights,
    pixels: Tensor,
    levels: int,
    blocks: int,
    middle: int,
    halve: Callable[[str, Tensor], Tensor],
    *,
    drops_input: bool,
) -> Tensor:
    """Residual blocks alone, as MaskGIT and Open-MAGVIT2 have them."""
    h = conv(w, "conv_in", pixels)
    for level in range(levels):
        for block in range(blocks):
            h = residual(w, f"down.{level}.block.{block}", h, drops_input=drops_input)
        if level < levels - 1:
            h = halve(f"down.{level}.downsample.conv", h)
    for block in range(1, middle + 1):
        h = residual(w, f"mid.block_{block}", h)
    return conv(w, "conv_out", silu(norm(w, "norm_out", h)))


def magvit2_encoder(w: Weights, pixels: Tensor, levels: int, blocks: int) -> Tensor:
    def halve(name: str, x: Tensor) -> Tensor:
        return conv(w, name, x, stride=2, padding=1)

    return plain_encoder(w, pixels, levels, blocks, 4, halve, drops_input=False)


def magvit2_decoder(w: Weights, codes: Tensor, levels: int, blocks: int) -> Tensor:
    h = conv(w, "conv_in", codes)
    for block in range(1, 5):
        h = residual(w, f"mid.block_{block}", h)
    spread = (codes.var(dim=(2, 3), unbiased=True) + 1e-6).sqrt()
    mean = codes.mean(dim=(2, 3))
    for level in reversed(range(levels)):
        name = f"adaptive.{level}"
        scale = linear(spread, w[f"{name}.gamma.weight"], w[f"{name}.gamma.bias"])
        shift = linear(mean, w[f"{name}.beta.weight"], w[f"{name}.beta.bias"])
        h = group_norm(h, GROUPS, eps=1e-6) * scale[:, :, None, None] + shift[:, :, None, None]
        for block in range(blocks):
            h = residual(w, f"up.{level}.block.{block}", h)
        if level > 0:
            wide = conv(w, f"up.{level}.upsample.conv", h)
            channels = wide.shape[1] // 4
            h = wide.new_empty(len(wide), channels, 2 * wide.shape[2], 2 * wide.shape[3])
            for row in range(2):
                for column in range(2):
                    first = (2 * row + column) * channels
                    h[:, :, row::2, column::2] = wide[:, first : first + channels]
    return conv(w, "conv_out", silu(norm(w, "norm_out", h)))


def maskgit_encoder(w: Weights, unit_pixels: Tensor, levels: int, blocks: int) -> Tensor:
    return plain_encoder(w, unit_pixels, levels, blocks, 2, lambda _, x: avg_pool2d(x, 2), drops_input=True)


def maskgit_decoder(w: Weights, codes: Tensor, levels: int, blocks: int) -> Tensor:
    h = conv(w, "conv_in", codes)
    for block in (1, 2):
        h = residual(w, f"mid.block_{block}", h)
    for level in reversed(range(levels)):
        for block in range(blocks):
            h = residual(w, f"up.{level}.block.{block}", h, drops_input=True)
        if level > 0:
            h = nearest(w, f"up.{level}.upsample", h)
    return conv(w, "conv_out", silu(norm(w, "norm_out", h)))


def haar(images: Tensor) -> Tensor:
    """One step of the transform by its definition, position by position."""
    a, b = images[:, :, 0::2, 0::2], images[:, :, 0::2, 1::2]
    c, d = images[:, :, 1::2, 0::2], images[:, :, 1::2, 1::2]
    return torch.cat([a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d], dim=1) / 4
