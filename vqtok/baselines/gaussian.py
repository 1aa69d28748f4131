"""A Gaussian with a diagonal covariance as q(z | x), against the prior N(0, 1). Kingma and Welling 2014."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vqtok.losses.base import exact

__all__ = ["DiagonalGaussian"]

LOG_VARIANCES = (-14.0, 14.0)
"""A standard deviation of exp(-7) tells latents of the unit prior a thousand times finer than it spreads them."""
LARGEST_MEAN = 1e4


@dataclass(frozen=True)
class DiagonalGaussian:
    """N(mean, diag exp(log_variance)), both (B, D, h, w) in float32 at least."""

    mean: Tensor
    log_variance: Tensor

    @classmethod
    def of(cls, parameters: Tensor) -> DiagonalGaussian:
        """From what an encoder gives, (B, 2 D, h, w): means, then logarithms of variances.

        Both are bounded so that all that follows is finite; inside the bounds nothing is changed, and what is beyond
        has no gradient.
        """
        mean, log_variance = exact(parameters).chunk(2, dim=1)
        return cls(mean.clamp(-LARGEST_MEAN, LARGEST_MEAN), log_variance.clamp(*LOG_VARIANCES))

    def kl(self) -> Tensor:
        """KL(q || N(0, 1)) = 1/2 sum (mean^2 + variance - 1 - ln variance), nats per image: (B,)."""
        terms = self.mean.square() + torch.expm1(self.log_variance) - self.log_variance
        return 0.5 * terms.flatten(1).sum(1)

    def noise(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal numbers (S, B, D, h, w)."""
        shape = (num_samples, *self.mean.shape)
        return torch.randn(shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)

    def at(self, noise: Tensor) -> Tensor:
        """z = mean + deviation * noise, (S, B, D, h, w), through which gradients pass."""
        return self.mean + torch.exp(0.5 * self.log_variance) * noise

    def log_prob(self, noise: Tensor) -> Tensor:
        """ln q(z | x) of z = `at(noise)` in nats, (S, B): z and q move together, so that the noise stays."""
        return log_normal(noise) - 0.5 * self.log_variance.flatten(1).sum(1)


def log_normal(z: Tensor) -> Tensor:
    """ln N(z; 0, 1) in nats, (S, B, D, h, w) -> (S, B)."""
    squares = z.square().flatten(2)
    return -0.5 * (squares.sum(2) + squares.shape[2] * math.log(2 * math.pi))
