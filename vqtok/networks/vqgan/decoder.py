"""Codes' vectors to pixels: the mirror image of the encoder, which may be told of the codes at every norm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from vqtok.networks.vqgan.blocks import AttentionBlock, Upsample, from_haar
from vqtok.networks.vqgan.norms import AdaptiveGroupNorm, GroupNorm, Norm, SpatialNorm, norm_silu
from vqtok.networks.vqgan.options import VQGANOptions
from vqtok.networks.vqgan.stages import Block, Checkpointed, Middle, Unit, checked_code_dim, residual_blocks

__all__ = ["VQGANDecoder"]


class VQGANDecoder(Checkpointed):
    """Quantized latents (B, D, h, w) -> pixels (B, C, h * factor, w * factor); arguments as for VQGANEncoder."""

    def __init__(self, *, num_channels: int, code_dim: int, **options: Any) -> None:
        super().__init__()
        chosen = self.options = VQGANOptions(**options)
        checked_code_dim(chosen, code_dim)

        def norm(channels: int) -> GroupNorm | SpatialNorm:
            if chosen.decoder_norm == "spatial":
                return SpatialNorm(channels, chosen.norm_groups, code_dim)
            return GroupNorm(channels, chosen.norm_groups)

        if kernel := chosen.quant_conv_kernel:
            self.post_quant_conv = nn.Conv2d(code_dim, chosen.z_channels, kernel_size=kernel, padding=kernel // 2)
        width = chosen.widths[-1]
        self.conv_in = nn.Conv2d(chosen.z_channels, width, kernel_size=3, padding=1)
        self.mid = Middle(width, norm, chosen)
        levels, adaptive = [], []
        for level in reversed(range(len(chosen.widths))):
            if chosen.decoder_norm == "adaptive":
                adaptive.append(AdaptiveGroupNorm(width, chosen.norm_groups, code_dim))
            levels.append(DecoderLevel(level, width, chosen.widths[level], norm, chosen))
            width = chosen.widths[level]
        self.up = nn.ModuleList(reversed(levels))
        self.adaptive = nn.ModuleList(reversed(adaptive))
        self.norm_out = norm(width)
        self.conv_out = nn.Conv2d(width, chosen.pixel_channels(num_channels), kernel_size=3, padding=1)

    def forward(self, codes: Tensor) -> Tensor:
        features = self.conv_in(self.post_quant_conv(codes) if self.options.quant_conv_kernel else codes)
        pixels = from_haar(self.run(self.units(), features, codes), self.options.patch)
        return pixels * 2 - 1 if self.options.pixel_range == "unit" else pixels

    def units(self) -> Iterator[Unit]:
        """The blocks in their order; a doubling and an adaptive norm go with the block after them."""
        yield from self.mid.units()
        before: list[Block] = []
        for number in reversed(range(len(self.up))):
            level = self.up[number]
            assert isinstance(level, DecoderLevel)
            before += [self.adaptive[number]] if self.adaptive else []
            for unit in level.units():
                yield [*before, *unit]
                before = []
            before = [] if level.upsample is None else [level.upsample]
        yield [*before, self.out]

    def out(self, features: Tensor, codes: Tensor | None) -> Tensor:
        """Features of the first level to pixels, or to their wavelets."""
        pixels: Tensor = self.conv_out(norm_silu(self.norm_out, features, codes))
        return pixels


class DecoderLevel(nn.Module):
    """Residual blocks, with attention after each where the level has it, and the way to the next higher resolution."""

    def __init__(self, level: int, before: int, after: int, norm: Norm, options: VQGANOptions) -> None:
        super().__init__()
        assert options.attention_levels is not None and options.up_levels is not None
        number = options.num_res_blocks + options.decoder_extra_block
        self.block = residual_blocks(number, before, after, norm, options)
        with_attention = number if level in options.attention_levels else 0
        self.attn = nn.ModuleList(AttentionBlock(after, norm) for _ in range(with_attention))
        self.upsample = Upsample(after, options.upsample) if level in options.up_levels else None

    def units(self) -> Iterator[Unit]:
        """A residual block with the attention after it."""
        for number, block in enumerate(self.block):
            yield [block, self.attn[number]] if self.attn else [block]
