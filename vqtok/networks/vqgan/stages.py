"""What encoder and decoder have alike: rows of residual blocks, the middle, and how blocks are run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from vqtok.errors import ConfigurationError
from vqtok.networks.vqgan.blocks import AttentionBlock, ResidualBlock
from vqtok.networks.vqgan.norms import Norm
from vqtok.networks.vqgan.options import VQGANOptions

__all__ = ["Block", "Checkpointed", "Middle", "Unit", "checked_code_dim", "residual_blocks"]

Block = Callable[[Tensor, Tensor | None], Tensor]
"""Features and codes to features."""

Unit = Sequence[Block]
"""Blocks that are computed again together; what is kept is the features between units."""


class Checkpointed(nn.Module):
    """A network whose blocks may be computed again in the backward pass rather than remembered.

    transformers' `gradient_checkpointing_enable` sets these two attributes of every module that has the first.
    """

    gradient_checkpointing: bool = False
    _gradient_checkpointing_func: Callable[..., Any] | None = None

    def run(self, units: Iterable[Unit], features: Tensor, codes: Tensor | None) -> Tensor:
        """What the blocks of all units give, one after the other."""
        for unit in units:
            if self.gradient_checkpointing and self.training and self._gradient_checkpointing_func is not None:
                features = self._gradient_checkpointing_func(in_turn, unit, features, codes)
            else:
                features = in_turn(unit, features, codes)
        return features


def in_turn(unit: Unit, features: Tensor, codes: Tensor | None) -> Tensor:
    """What the blocks of one unit give."""
    for block in unit:
        features = block(features, codes)
    return features


class Middle(nn.Module):
    """Residual blocks at the resolution of the code grid, with attention between two."""

    def __init__(self, channels: int, norm: Norm, options: VQGANOptions) -> None:
        super().__init__()
        for number, block in enumerate(residual_blocks(options.mid_blocks, channels, channels, norm, options), 1):
            setattr(self, f"block_{number}", block)
        self.attn_1 = AttentionBlock(channels, norm) if options.mid_attention else None
        self.blocks = options.mid_blocks

    def units(self) -> Iterator[Unit]:
        """Each block for itself."""
        for number in range(1, self.blocks + 1):
            yield [getattr(self, f"block_{number}")]
            if number == 1 and self.attn_1 is not None:
                yield [self.attn_1]


def residual_blocks(number: int, before: int, after: int, norm: Norm, options: VQGANOptions) -> nn.ModuleList:
    """So many residual blocks, the first of which changes the number of channels."""
    return nn.ModuleList(
        ResidualBlock(
            after if index else before,
            after,
            norm,
            bias=options.conv_bias,
            of_output=options.shortcut == "output",
            dropout=options.dropout,
        )
        for index in range(number)
    )


def checked_code_dim(options: VQGANOptions, code_dim: int) -> None:
    """Refuse latents that nothing brings to the code dimension.

    Raises:
        ConfigurationError: names both numbers.
    """
    if options.quant_conv_kernel == 0 and options.z_channels != code_dim:
        raise ConfigurationError(
            f"network.z_channels {options.z_channels} must be the code dimension {code_dim} where "
            "network.quant_conv_kernel is 0: change one of them"
        )
