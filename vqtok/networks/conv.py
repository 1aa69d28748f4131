"""The convolutional encoder and decoder of VQ-VAE.

Strided 4x4 convolutions halve the image until one position of the grid stands for `downsample_factor` pixels a side,
then a 3x3 convolution, residual blocks and a projection to the code dimension; the decoder is the mirror image. The
strided convolutions and the residual blocks are those of van den Oord et al. 2017, arXiv:1711.00937, section 4.1. The
first layers of half the width, the 3x3 convolution and the default widths are those of the example notebook of
Sonnet, DeepMind's library; the paper has 256 channels throughout.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from torch import nn

from vqtok.networks.base import Network, NetworkOptions
from vqtok.networks.blocks import ResidualBlock, ResidualStack, init_convolution
from vqtok.options import Allowed

__all__ = ["CONV", "ConvDecoder", "ConvEncoder", "ConvOptions"]


MOST_PIXELS = 2**10  # a side for one code


def is_power_of_two(factor: int) -> int:
    """The factor, refused where no number of halvings gives it."""
    if not 1 <= factor <= MOST_PIXELS or factor & (factor - 1):
        raise ValueError
    return factor


class ConvOptions(NetworkOptions):
    """Options of `conv`."""

    type: Literal["conv"] = "conv"
    hidden_size: int = Field(
        128, ge=2, le=2**16, description="channels at the resolution of the code grid; half as many at higher ones"
    )
    residual_size: int = Field(32, ge=1, le=2**16, description="channels inside a residual block")
    num_residual_blocks: int = Field(
        2, ge=0, le=2**10, description="residual blocks at the resolution of the code grid"
    )
    downsample_factor: Annotated[
        int, AfterValidator(is_power_of_two), Allowed(f"a power of two up to {MOST_PIXELS}")
    ] = Field(4, description="pixels per side that one code stands for")


def stage_widths(hidden_size: int, downsample_factor: int) -> list[int]:
    """Channels after each halving: half of `hidden_size` until the last, which has all of it."""
    stages = int(math.log2(downsample_factor))
    return [hidden_size // 2] * (stages - 1) + [hidden_size] if stages else []


class ConvEncoder(nn.Sequential):
    """Pixels (B, C, H, W) -> latents (B, D, H / factor, W / factor).

    Args:
        num_channels: C.
        code_dim: D.
        options: of `ConvOptions`, by name.
    """

    def __init__(self, *, num_channels: int, code_dim: int, **options: Any) -> None:
        chosen = ConvOptions(**options)
        widths = [num_channels, *stage_widths(chosen.hidden_size, chosen.downsample_factor)]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1), nn.ReLU(inplace=True)]
        super().__init__(
            *layers,
            nn.Conv2d(widths[-1], chosen.hidden_size, kernel_size=3, padding=1),
            ResidualStack(chosen.hidden_size, chosen.residual_size, chosen.num_residual_blocks),
            nn.Conv2d(chosen.hidden_size, code_dim, kernel_size=1),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation (He et al. 2015, arXiv:1502.01852); latents start with about unit variance."""
        reset_convolutions(self, last_gain=1.0)


class ConvDecoder(nn.Sequential):
    """Quantized latents (B, D, h, w) -> pixels (B, C, h * factor, w * factor); arguments as for ConvEncoder."""

    def __init__(self, *, num_channels: int, code_dim: int, **options: Any) -> None:
        chosen = ConvOptions(**options)
        widths = [*reversed(stage_widths(chosen.hidden_size, chosen.downsample_factor)), num_channels]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.ConvTranspose2d(before, after, kernel_size=4, stride=2, padding=1), nn.ReLU(inplace=True)]
        if not layers:
            layers = [nn.Conv2d(chosen.hidden_size, num_channels, kernel_size=3, padding=1), nn.ReLU(inplace=True)]
        super().__init__(
            nn.Conv2d(code_dim, chosen.hidden_size, kernel_size=3, padding=1),
            ResidualStack(chosen.hidden_size, chosen.residual_size, chosen.num_residual_blocks),
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


CONV = Network(options=ConvOptions, encoder=ConvEncoder, decoder=ConvDecoder)
