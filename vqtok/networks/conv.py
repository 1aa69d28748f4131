"""The convolutional encoder and decoder of van den Oord et al. 2017, arXiv:1711.00937, section 4.1.

Strided 4x4 convolutions halve the image until one position of the grid stands for `downsample_factor` pixels a side,
then a 3x3 convolution, residual blocks and a projection to the code dimension; the decoder is the mirror image.
"""

from __future__ import annotations

import math
from itertools import pairwise

from torch import nn

from vqtok.errors import ConfigurationError
from vqtok.networks.blocks import ResidualBlock, ResidualStack, init_convolution

__all__ = ["ConvDecoder", "ConvEncoder"]


def stage_widths(hidden_size: int, downsample_factor: int) -> list[int]:
    """Channels after each halving: half of `hidden_size` until the last, which has all of it."""
    stages = int(math.log2(downsample_factor))
    return [hidden_size // 2] * (stages - 1) + [hidden_size] if stages else []


def check_options(hidden_size: int, residual_size: int, num_residual_blocks: int, downsample_factor: int) -> None:
    if hidden_size < 2:
        raise ConfigurationError(f"network.hidden_size must be at least 2, got {hidden_size}")
    if residual_size < 1:
        raise ConfigurationError(f"network.residual_size must be at least 1, got {residual_size}")
    if num_residual_blocks < 0:
        raise ConfigurationError(f"network.num_residual_blocks must be at least 0, got {num_residual_blocks}")
    if downsample_factor < 1 or downsample_factor & (downsample_factor - 1):
        raise ConfigurationError(f"network.downsample_factor must be a power of two, got {downsample_factor}")


class ConvEncoder(nn.Sequential):
    """Pixels (B, C, H, W) -> latents (B, D, H / factor, W / factor).

    Args:
        num_channels: C.
        code_dim: D.
        hidden_size: channels at grid resolution; half of it before.
        residual_size: channels inside a residual block.
        num_residual_blocks: blocks at grid resolution.
        downsample_factor: pixels a side for one position of the grid, a power of two.
    """

    def __init__(
        self,
        *,
        num_channels: int,
        code_dim: int,
        hidden_size: int = 128,
        residual_size: int = 32,
        num_residual_blocks: int = 2,
        downsample_factor: int = 4,
    ) -> None:
        check_options(hidden_size, residual_size, num_residual_blocks, downsample_factor)
        widths = [num_channels, *stage_widths(hidden_size, downsample_factor)]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1), nn.ReLU()]
        super().__init__(
            *layers,
            nn.Conv2d(widths[-1], hidden_size, kernel_size=3, padding=1),
            ResidualStack(hidden_size, residual_size, num_residual_blocks),
            nn.Conv2d(hidden_size, code_dim, kernel_size=1),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation (He et al. 2015, arXiv:1502.01852); latents start with about unit variance."""
        reset_convolutions(self, last_gain=1.0)


class ConvDecoder(nn.Sequential):
    """Quantized latents (B, D, h, w) -> pixels (B, C, h * factor, w * factor); arguments as for ConvEncoder."""

    def __init__(
        self,
        *,
        num_channels: int,
        code_dim: int,
        hidden_size: int = 128,
        residual_size: int = 32,
        num_residual_blocks: int = 2,
        downsample_factor: int = 4,
    ) -> None:
        check_options(hidden_size, residual_size, num_residual_blocks, downsample_factor)
        widths = [*reversed(stage_widths(hidden_size, downsample_factor)), num_channels]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.ConvTranspose2d(before, after, kernel_size=4, stride=2, padding=1), nn.ReLU()]
        if not layers:
            layers = [nn.Conv2d(hidden_size, num_channels, kernel_size=3, padding=1), nn.ReLU()]
        super().__init__(
            nn.Conv2d(code_dim, hidden_size, kernel_size=3, padding=1),
            ResidualStack(hidden_size, residual_size, num_residual_blocks),
            *layers[:-1],
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation; pixels start at half the spread of [-1, 1], which a colour image has."""
        reset_convolutions(self, last_gain=0.5)


def reset_convolutions(network: nn.Module, *, last_gain: float) -> None:
    """He initialisation throughout; residual blocks as the identity, and another gain for the last layer."""
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    for convolution in convolutions:
        init_convolution(convolution, gain=math.sqrt(2))
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            module.reset_parameters()
    init_convolution(convolutions[-1], gain=last_gain)
