"""Published tokenizers as equations over tensors that are named as their programs name them, from pixels to codes.

Nothing of vqtok is used. A tensor is drawn where an equation first asks for it, with the channels that stand there, so
that what was computed once is both a checkpoint of the program and what the program gives for it. Read off: taming-
transformers and latent-diffusion (Esser et al. 2021, Rombach et al. 2022), LlamaGen (Sun et al. 2024), IBQ (Shi et al.
2024), Open-MAGVIT2 (Luo et al. 2024), MaskGIT (Chang et al. 2022), Cosmos Tokenizer (NVIDIA 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, group_norm, linear, normalize, pad, silu

GROUPS = 32


class Weights(dict[str, Tensor]):
    """Tensors by name; one that is not there yet is drawn."""

    def drawn(self, name: str, *shape: int, spread: float = 1.0, mean: float = 0.0) -> Tensor:
        if name not in self:
            self[name] = torch.randn(shape) * spread + mean
        assert self[name].shape == shape
        return self[name]

    def norm(self, name: str, x: Tensor) -> Tensor:
        scale = self.drawn(f"{name}.weight", x.shape[1], spread=0.2, mean=1.0)
        return group_norm(x, GROUPS, scale, self.drawn(f"{name}.bias", x.shape[1], spread=0.2), 1e-6)

    def conv(
        self, name: str, x: Tensor, channels: int, kernel: int = 3, *, bias: bool = True, **options: Any
    ) -> Tensor:
        before = x.shape[1]
        weight = self.drawn(f"{name}.weight", channels, before, kernel, kernel, spread=(before * kernel**2) ** -0.5)
        shift = self.drawn(f"{name}.bias", channels, spread=0.2) if bias else None
        return conv2d(x, weight, shift, **({"padding": kernel // 2} | options))

    def linear(self, name: str, x: Tensor, channels: int) -> Tensor:
        weight = self.drawn(f"{name}.weight", channels, x.shape[1], spread=x.shape[1] ** -0.5)
        return linear(x, weight, self.drawn(f"{name}.bias", channels, spread=0.2))

    def scaled(
        self, name: str, x: Tensor, channels: int, kernel: int, *, mean: float = 0.0, spread: float = 1.0
    ) -> Tensor:
        """A convolution drawn so that its channels have this mean and spread: all kinds of codes, pixels in range."""
        drawn = self.conv(name, x, channels, kernel)
        there, about = torch.std_mean(drawn, dim=(0, 2, 3))
        self[f"{name}.weight"] *= (spread / there)[:, None, None, None]
        self[f"{name}.bias"] = (self[f"{name}.bias"] - about) * spread / there + mean
        return self.conv(name, x, channels, kernel)


def residual(
    w: Weights, name: str, x: Tensor, channels: int, *, bias: bool = True, drops_input: bool = False
) -> Tensor:
    h = w.conv(f"{name}.conv1", silu(w.norm(f"{name}.norm1", x)), channels, bias=bias)
    h = w.conv(f"{name}.conv2", silu(w.norm(f"{name}.norm2", h)), channels, bias=bias)
    if x.shape[1] != channels:
        x = w.conv(f"{name}.nin_shortcut", h if drops_input else x, channels, 1, bias=bias)
    return x + h


def attention(w: Weights, name: str, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    h = w.norm(f"{name}.norm", x)
    q, k, v = (w.conv(f"{name}.{part}", h, channels, 1).reshape(batch, channels, -1) for part in "qkv")
    weights = (torch.einsum("bci,bcj->bij", q, k) / math.sqrt(channels)).softmax(dim=2)
    mixed = torch.einsum("bij,bcj->bci", weights, v).reshape(batch, channels, height, width)
    return x + w.conv(f"{name}.proj_out", mixed, channels, 1)


def middle(w: Weights, name: str, x: Tensor, parts: Sequence[str], *, attends: bool = True) -> Tensor:
    first, between, last = parts
    x = residual(w, f"{name}.{first}", x, x.shape[1])
    x = attention(w, f"{name}.{between}", x) if attends else x
    return residual(w, f"{name}.{last}", x, x.shape[1])


def halved(w: Weights, name: str, x: Tensor) -> Tensor:
    return w.conv(name, pad(x, (0, 1, 0, 1)), x.shape[1], stride=2, padding=0)


def twice(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


TAMING = {"level": "{}.{}", "block": "block", "middle": ("block_1", "attn_1", "block_2")}
LLAMAGEN = {"level": "conv_blocks.{1}", "block": "res", "middle": ("0", "1", "2")}


def taming_encoder(
    w: Weights,
    x: Tensor,
    widths: Sequence[int],
    *,
    blocks: int = 2,
    z: int = 256,
    attends: Collection[int] = (),
    mid: bool = True,
    halves: Collection[int] | None = None,
    names: Any = TAMING,
) -> Tensor:
    """Of taming-transformers, latent-diffusion, IBQ, Cosmos and, under other names, LlamaGen."""
    h = w.conv("encoder.conv_in", x, 128)
    for number, width in enumerate(widths):
        level = "encoder." + names["level"].format("down", number)
        for block in range(blocks):
            h = residual(w, f"{level}.{names['block']}.{block}", h, width)
            h = attention(w, f"{level}.attn.{block}", h) if number in attends else h
        if number in (range(len(widths) - 1) if halves is None else halves):
            h = halved(w, f"{level}.downsample.conv", h)
    h = middle(w, "encoder.mid", h, names["middle"], attends=mid)
    return w.conv("encoder.conv_out", silu(w.norm("encoder.norm_out", h)), z)


def taming_decoder(
    w: Weights,
    z: Tensor,
    widths: Sequence[int],
    *,
    blocks: int = 2,
    attends: Collection[int] = (),
    mid: bool = True,
    doubles: Collection[int] | None = None,
    names: Any = TAMING,
    out: int = 3,
) -> Tensor:
    """The levels of taming-transformers are numbered from the image, those of LlamaGen from the codes."""
    h = middle(w, "decoder.mid", w.conv("decoder.conv_in", z, widths[-1]), names["middle"], attends=mid)
    last = len(widths) - 1
    for number in range(last, -1, -1):
        level = "decoder." + names["level"].format("up", last - number if names is LLAMAGEN else number)
        for block in range(blocks + 1):
            h = residual(w, f"{level}.{names['block']}.{block}", h, widths[number])
            h = attention(w, f"{level}.attn.{block}", h) if number in attends else h
        if number in (range(1, last + 1) if doubles is None else doubles):
            h = w.conv(f"{level}.upsample.conv", twice(h), widths[number])
    return w.scaled("decoder.conv_out", silu(w.norm("decoder.norm_out", h)), out, 3, spread=0.7 / math.sqrt(out))


def plain_encoder(
    w: Weights,
    x: Tensor,
    widths: Sequence[int],
    z: int,
    *,
    blocks: int,
    middle: str,
    drops_input: bool,
    halve: Callable[[str, Tensor], Tensor],
) -> Tensor:
    """Residual blocks alone, without biases, as Open-MAGVIT2 and MaskGIT have them; the latents are its last layer."""
    h = w.conv("encoder.conv_in", x, 128, bias=False)
    for level, width in enumerate(widths):
        for block in range(blocks):
            h = residual(w, f"encoder.down.{level}.block.{block}", h, width, bias=False, drops_input=drops_input)
        h = halve(f"encoder.down.{level}.downsample", h) if level < len(widths) - 1 else h
    for block in range(blocks):
        h = residual(w, f"encoder.{middle}.{block}", h, widths[-1], bias=False)
    return w.scaled("encoder.conv_out", silu(w.norm("encoder.norm_out", h)), z, 1)


def magvit2_encoder(w: Weights, x: Tensor, widths: Sequence[int], z: int) -> Tensor:
    def halve(name: str, x: Tensor) -> Tensor:
        return w.conv(name, x, x.shape[1], stride=2, padding=1)

    return plain_encoder(w, x, widths, z, blocks=4, middle="mid_block", drops_input=False, halve=halve)


def magvit2_decoder(w: Weights, codes: Tensor, widths: Sequence[int]) -> Tensor:
    h = w.conv("decoder.conv_in", codes, widths[-1])
    for block in range(4):
        h = residual(w, f"decoder.mid_block.{block}", h, widths[-1], bias=False)
    rows = codes.flatten(2)
    centred = rows - rows.mean(dim=2, keepdim=True)
    spread = (centred.square().sum(dim=2) / (rows.shape[2] - 1) + 1e-6).sqrt()
    for level in range(len(widths) - 1, -1, -1):
        scale = w.linear(f"decoder.adaptive.{level}.gamma", spread, h.shape[1])
        shift = w.linear(f"decoder.adaptive.{level}.beta", rows.mean(dim=2), h.shape[1])
        h = group_norm(h, GROUPS, eps=1e-6) * scale[:, :, None, None] + shift[:, :, None, None]
        for block in range(4):
            h = residual(w, f"decoder.up.{level}.block.{block}", h, widths[level], bias=False)
        if level:
            wide = w.conv(f"decoder.up.{level}.upsample.conv1", h, 4 * widths[level])
            h = wide.new_empty(len(wide), widths[level], 2 * wide.shape[2], 2 * wide.shape[3])
            for quarter, part in enumerate(wide.chunk(4, dim=1)):  # top left, top right, bottom left, bottom right
                h[:, :, quarter // 2 :: 2, quarter % 2 :: 2] = part
    return w.scaled("decoder.conv_out", silu(w.norm("decoder.norm_out", h)), 3, 3, spread=0.4)


def maskgit_encoder(w: Weights, x: Tensor, widths: Sequence[int]) -> Tensor:
    return plain_encoder(
        w, x, widths, 256, blocks=2, middle="mid", drops_input=True, halve=lambda _, each: avg_pool2d(each, 2)
    )


def maskgit_decoder(w: Weights, codes: Tensor, widths: Sequence[int]) -> Tensor:
    h = w.conv("decoder.conv_in", codes, widths[-1])
    for block in range(2):
        h = residual(w, f"decoder.mid.{block}", h, widths[-1], bias=False)
    for level in range(len(widths) - 1, -1, -1):
        for block in range(2):
            h = residual(w, f"decoder.up.{level}.block.{block}", h, widths[level], bias=False, drops_input=True)
        if level:
            h = w.conv(f"decoder.up.{level}.upsample_conv", twice(h), widths[level])
    return w.scaled("decoder.conv_out", silu(w.norm("decoder.norm_out", h)), 3, 3, mean=0.5, spread=0.2)


HAAR = torch.tensor([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1.0]])
"""Mean, differences of rows, of columns and of diagonals, of a block read row by row."""


def haar(x: Tensor) -> Tensor:
    """One step of the wavelets of Cosmos: (B, C, H, W) -> (B, 4 C, H / 2, W / 2)."""
    blocks = torch.stack([x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)], dim=1)
    return torch.einsum("qp,bpchw->bqchw", HAAR / 4, blocks).flatten(1, 2)


def from_haar(x: Tensor) -> Tensor:
    blocks = torch.einsum("qp,bqchw->bpchw", HAAR, x.unflatten(1, (4, -1)))
    image = x.new_empty(len(x), x.shape[1] // 4, 2 * x.shape[2], 2 * x.shape[3])
    for number in range(4):
        image[:, :, number // 2 :: 2, number % 2 :: 2] = blocks[:, number]
    return image


TIE = 1e-5
Found = tuple[Tensor, Tensor]
"""Codes (B, h, w), and for which of them the two best are so near that rounding may choose."""


def best(scores: Tensor) -> Found:
    """The code of the lowest score: (B, h, w, K)."""
    (first, second), codes = scores.topk(2, largest=False).values.unbind(-1), scores.argmin(dim=-1)
    return codes, second - first < TIE * first.abs()


def nearest(z: Tensor, table: Tensor) -> Found:
    """The least distance, in float64: programs take the least of z^2 + e^2 - 2 z e in float32, each rounded its way."""
    return best(torch.cdist(z.movedim(1, -1).double(), table.double()))


def most_alike(z: Tensor, table: Tensor) -> Found:
    """LlamaGen: the nearest of unit length."""
    return nearest(normalize(z, dim=1), normalize(table, dim=1))


def largest_product(z: Tensor, table: Tensor) -> Found:
    """IBQ: the greatest probability of the softmax of inner products."""
    return best(-torch.einsum("bdhw,kd->bhwk", z.double(), table.double()))


def signs(z: Tensor) -> tuple[Found, Tensor]:
    """Open-MAGVIT2: 1 and -1, the first channel as the least significant bit."""
    bits = z > 0
    powers = torch.tensor([2**number for number in range(z.shape[1])]).view(1, -1, 1, 1)
    return ((bits * powers).sum(dim=1), (z.abs() < TIE).any(dim=1)), bits * 2.0 - 1


def cosmos_levels(z: Tensor, levels: Sequence[int]) -> tuple[Found, Tensor]:
    """Cosmos: bounded a little past the outermost levels and rounded; the first level is the least significant."""
    codes, unsure, values, step = torch.zeros(z[:, 0].shape, dtype=torch.int64), torch.zeros(()), [], 1
    for channel, count in zip(z.unbind(1), levels, strict=True):
        half = (count - 1) * 1.001 / 2
        offset = 0.0 if count % 2 else 0.5
        bounded = torch.tanh(channel + math.atanh(offset / half)) * half - offset
        level = bounded.round()
        unsure = unsure + ((bounded - bounded.floor() - 0.5).abs() < TIE * count)
        codes += step * (level + count // 2).long()
        values.append(level / (count // 2))
        step *= count
    return (codes, unsure > 0), torch.stack(values, dim=1)
