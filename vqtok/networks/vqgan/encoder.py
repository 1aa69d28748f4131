"""Pixels to latents: residual blocks and halvings, attention at the last level, a middle."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn

from vqtok.networks.vqgan.blocks import AttentionBlock, Downsample, to_haar
from vqtok.networks.vqgan.norms import GroupNorm, Norm, norm_silu
from vqtok.networks.vqgan.options import VQGANOptions
from vqtok.networks.vqgan.stages import Block, Checkpointed, Middle, Unit, checked_code_dim, residual_blocks

__all__ = ["VQGANEncoder"]


class VQGANEncoder(Checkpointed):
    """Pixels (B, C, H, W) in [-1, 1] -> latents (B, D, H / factor, W / factor).

    The names of its parameters are those of taming-transformers (Esser et al. 2021, arXiv:2012.09841).

    Args:
        num_channels: C.
        code_dim: D.
        options: of `VQGANOptions`, by name.
    """

    def __init__(self, *, num_channels: int, code_dim: int, **options: Any) -> None:
        super().__init__()
        chosen = self.options = VQGANOptions(**options)
        checked_code_dim(chosen, code_dim)
        norm = partial(GroupNorm, groups=chosen.norm_groups)
        self.conv_in = nn.Conv2d(
            chosen.pixel_channels(num_channels),
            chosen.base_channels,
            kernel_size=3,
            padding=1,
            bias=chosen.conv_bias,
        )
        self.down = nn.ModuleList()
        width = chosen.base_channels
        for level, after in enumerate(chosen.widths):
            self.down.append(EncoderLevel(level, width, after, norm, chosen))
            width = after
        self.mid = Middle(width, norm, chosen)
        self.norm_out = norm(width)
        kernel: int = chosen.encoder_out_kernel
        self.conv_out = nn.Conv2d(width, chosen.z_channels, kernel_size=kernel, padding=kernel // 2)
        if chosen.quant_conv_kernel:
            kernel = chosen.quant_conv_kernel
            self.quant_conv = nn.Conv2d(chosen.z_channels, code_dim, kernel_size=kernel, padding=kernel // 2)

    def forward(self, pixels: Tensor) -> Tensor:
        if self.options.pixel_range == "unit":
            pixels = (pixels + 1) / 2
        latents = self.run(self.units(), to_haar(pixels, self.options.patch), None)
        return self.quant_conv(latents) if self.options.quant_conv_kernel else latents

    def units(self) -> Iterator[Unit]:
        """The blocks in their order; the first convolution goes with the first, a halving with the one before it."""
        before: list[Block] = [self.enter]
        for level in self.down:
            assert isinstance(level, EncoderLevel)
            for unit in level.units():
                yield [*before, *unit]
                before = []
        yield from self.mid.units()
        yield [self.out]

    def enter(self, pixels: Tensor, codes: Tensor | None) -> Tensor:
        """Pixels, or their wavelets, to features."""
        features: Tensor = self.conv_in(pixels)
        return features

    def out(self, features: Tensor, codes: Tensor | None) -> Tensor:
        """Features of the last level to latents."""
        latents: Tensor = self.conv_out(norm_silu(self.norm_out, features, codes))
        return latents


class EncoderLevel(nn.Module):
    """Residual blocks, with attention after each where the level has it, and the way to the next level."""

    def __init__(self, level: int, before: int, after: int, norm: Norm, options: VQGANOptions) -> None:
        super().__init__()
        assert options.attention_levels is not None and options.down_levels is not None
        self.block = residual_blocks(options.num_res_blocks, before, after, norm, options)
        with_attention = options.num_res_blocks if level in options.attention_levels else 0
        self.attn = nn.ModuleList(AttentionBlock(after, norm) for _ in range(with_attention))
        self.downsample = Downsample(after, options.downsample) if level in options.down_levels else None

    def units(self) -> Iterator[Unit]:
        """A residual block with the attention after it, and after the last the halving."""
        for number, block in enumerate(self.block):
            attention = [self.attn[number]] if self.attn else []
            halving = [self.downsample] if self.downsample is not None and number == len(self.block) - 1 else []
            yield [block, *attention, *halving]
