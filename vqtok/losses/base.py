"""What a reconstruction loss is, and what a likelihood is beyond it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from vqtok.options import Options

__all__ = ["LEVELS", "Likelihood", "LikelihoodOptions", "Reconstruction", "in_bits", "to_levels", "to_values"]

LEVELS = 256
"""Values of a pixel of 8 bits."""


BITS = ("bits_per_dim", "distortion", "rate")
"""Names of what `in_bits` gives."""


def to_levels(pixels: Tensor) -> Tensor:
    """Pixels in [-1, 1] as the level 0 to 255 that each is nearest to; int64."""
    return pixels.float().add(1).mul(127.5).round().clamp(0, LEVELS - 1).long()


def to_values(levels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Levels 0 to 255 as pixels in [-1, 1], in float32 as images are read."""
    return levels.to(dtype).div(127.5).sub(1.0)


def in_bits(*, distortion: float, rate: float) -> dict[str, float]:
    """-ln p(x | z) and -ln p(z), nats per dimension, in bits per dimension: their sum and each, under their names."""
    return {name: nats / math.log(2) for name, nats in zip(BITS, (distortion + rate, distortion, rate), strict=True)}


class LikelihoodOptions(Options):
    """What the options of every reconstruction loss have: its name, as `type`."""

    section = "likelihood"

    type: str


class Reconstruction(ABC):
    """How far pixels are from what a decoder gave.

    Args:
        num_channels: C, channels of the images.
        options: of the class, by name.

    Shapes: `parameters` is what the decoder gave, (B, num_parameters, H, W); `pixels` (B, C, H, W) in [-1, 1].
    """

    def __init__(self, *, num_channels: int, **options: Any) -> None:
        self.num_channels = num_channels

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """Channels that the decoder has to give."""

    @abstractmethod
    def loss(self, parameters: Tensor, pixels: Tensor) -> Tensor:
        """What training makes small: a scalar, the mean over images, channels and positions."""

    @abstractmethod
    def mean(self, parameters: Tensor) -> Tensor:
        """The pixels (B, C, H, W) that are expected, float32 and not clamped."""


class Likelihood(Reconstruction):
    """log p(x | z) of pixels x of 8 bits, each of which the decoder gives a distribution of its own.

    Arithmetic is float32 or, of parameters in float64, float64.
    """

    is_density: ClassVar[bool] = False
    """Whether p is a density, of which nothing sums to 1 and whose bits may be below 0."""

    @abstractmethod
    def log_prob(self, parameters: Tensor, levels: Tensor) -> Tensor:
        """ln p of levels, int64 (B, C, H, W): (B, C, H, W), each channel given those before it at its position."""

    @abstractmethod
    def table(self, parameters: Tensor, levels: Tensor, channel: int) -> Tensor:
        """p of each of the 256 levels of one channel, given those of the channels before it: what a coder needs.

        Args:
            levels: int64 (B, C, H, W), of which those of `channel` and after it are not looked at.

        Returns:
            (B, H, W, 256), in the type of `log_prob`.

        Raises:
            ConfigurationError: p is a density.
        """

    @abstractmethod
    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pixels (B, C, H, W) drawn from the distribution, in [-1, 1]; the generator is of the parameters' device."""

    def negative_log_likelihood(self, parameters: Tensor, pixels: Tensor) -> Tensor:
        """-ln p(x | z) in nats per image, float64 (B,), or float32 where a device has no float64.

        Divided by C H W ln 2 these are bits per dimension.
        """
        nats = -self.log_prob(parameters, to_levels(pixels))
        return nats.flatten(1).sum(1, dtype=torch.float32 if nats.device.type == "mps" else torch.float64)

    def loss(self, parameters: Tensor, pixels: Tensor) -> Tensor:
        """-ln p(x | z) in nats per dimension: a scalar."""
        return -self.log_prob(parameters, to_levels(pixels)).mean()


def exact(parameters: Tensor) -> Tensor:
    """Parameters in float32 at least, whatever autocast made of them."""
    return parameters if parameters.dtype == torch.float64 else parameters.float()
