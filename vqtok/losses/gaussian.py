"""A Gaussian for each channel, of one fixed variance or of one that the decoder gives.

A Gaussian has a density and no probabilities: nothing here sums to 1, a good enough decoder has fewer than 0 bits, and
no file can be that small. It is the density in units of one level of 8 bits, so that where a standard deviation is
some levels wide it is near the probability of a level; the other likelihoods have that exactly.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from vqtok.errors import ConfigurationError
from vqtok.losses.base import Likelihood, LikelihoodOptions, exact, to_levels, to_values

__all__ = ["Gaussian", "GaussianOptions"]

FIRST_LOG_STD = math.log(0.5)  # half the spread of [-1, 1], as colour images have
LOG_STDS = (-7.0, 7.0)  # a standard deviation of exp(-7) is 0.12 levels
LARGEST_MEAN = 100.0
LOG_LEVEL = math.log(2 / 255)  # of the width of a level in [-1, 1]


class GaussianOptions(LikelihoodOptions):
    """Options of `gaussian`."""

    type: Literal["gaussian"] = "gaussian"
    std: float | None = Field(
        0.1,
        ge=1e-4,
        le=1e3,
        description="standard deviation of pixels in [-1, 1], the same for all; null lets the decoder give it for each",
    )


class Gaussian(Likelihood):
    """Options: of `GaussianOptions`. The decoder gives C means and, where `std` is null, C logarithms of deviations."""

    is_density = True

    def __init__(self, *, num_channels: int, **options: Any) -> None:
        super().__init__(num_channels=num_channels)
        self.std = GaussianOptions(**options).std

    @property
    def num_parameters(self) -> int:
        return self.num_channels if self.std is not None else 2 * self.num_channels

    def parts(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Means and logarithms of standard deviations; what is beyond their bounds has no gradient."""
        if self.std is not None:
            means = exact(parameters)
            return means.clamp(-LARGEST_MEAN, LARGEST_MEAN), means.new_tensor(math.log(self.std))
        means, log_stds = exact(parameters).chunk(2, dim=1)
        return means.clamp(-LARGEST_MEAN, LARGEST_MEAN), (log_stds + FIRST_LOG_STD).clamp(*LOG_STDS)

    def log_prob(self, parameters: Tensor, levels: Tensor) -> Tensor:
        """ln of the density of a level, in units of one level."""
        means, log_stds = self.parts(parameters)
        distance = (to_values(levels, means.dtype) - means) * torch.exp(-log_stds)
        return LOG_LEVEL - log_stds - 0.5 * math.log(2 * math.pi) - 0.5 * distance.square()

    def table(self, parameters: Tensor, levels: Tensor, channel: int) -> Tensor:
        raise ConfigurationError(
            "a gaussian likelihood is a density, which gives the levels of a pixel no probabilities: train with "
            "--likelihood logistic or mixture"
        )

    def mean(self, parameters: Tensor) -> Tensor:
        return exact(parameters)[:, : self.num_channels]

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        means, log_stds = self.parts(parameters)
        noise = torch.randn(means.shape, generator=generator, dtype=means.dtype, device=means.device)
        return to_values(to_levels(means + log_stds.exp() * noise))
