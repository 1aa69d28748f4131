"""A discretized logistic distribution for each channel: Kingma et al. 2016, arXiv:1606.04934, section 6.

Of a level n, whose value is x = n / 127.5 - 1 and whose bin is half a level to either side,

    p(n) = sigmoid(a) - sigmoid(b)        a = (x + 1/255 - mean) / scale        b = (x - 1/255 - mean) / scale

where level 0 has b = -inf and level 255 a = inf, so that the 256 sum to 1. Differences of sigmoids lose all digits in
the tails. With a - b = d > 0 it is, exactly,

    sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(-d))

and the logarithm of each factor is exact in float32 wherever it is: no epsilon is added and nothing is cut off.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from vqtok.losses.base import LEVELS, Likelihood, LikelihoodOptions, exact, to_levels, to_values

__all__ = ["DiscretizedLogistic", "LogisticOptions", "bounded", "every_level", "log_prob_of_levels", "sample_logistic"]

FIRST_LOG_SCALE = math.log(0.5 * math.sqrt(3) / math.pi)
"""Where a network starts that gives zeros: half the spread of [-1, 1], as colour images have."""
LOG_SCALES = (-7.0, 7.0)
"""Salimans et al. 2017: at exp(-7), 97% lie in one level. At exp(7) all but the two outermost hardly anything."""
LARGEST_MEAN = 100.0


class LogisticOptions(LikelihoodOptions):
    """Options of `logistic`."""

    type: Literal["logistic"] = "logistic"


class DiscretizedLogistic(Likelihood):
    """The decoder gives C means, in the units of pixels, and C logarithms of scales."""

    @property
    def num_parameters(self) -> int:
        return 2 * self.num_channels

    def log_prob(self, parameters: Tensor, levels: Tensor) -> Tensor:
        means, log_scales = bounded(*exact(parameters).chunk(2, dim=1))
        return log_prob_of_levels(levels, means, log_scales)

    def table(self, parameters: Tensor, levels: Tensor, channel: int) -> Tensor:
        means, log_scales = bounded(*exact(parameters).chunk(2, dim=1))
        return log_prob_of_levels(
            every_level(means), means[:, channel, ..., None], log_scales[:, channel, ..., None]
        ).exp()

    def mean(self, parameters: Tensor) -> Tensor:
        """The mean of the logistic distribution, before it is cut into levels."""
        means, _ = exact(parameters).chunk(2, dim=1)
        return means

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return sample_logistic(*bounded(*exact(parameters).chunk(2, dim=1)), generator)


def bounded(means: Tensor, log_scales: Tensor) -> tuple[Tensor, Tensor]:
    """Means and logarithms of scales of which everything after is finite; what is beyond has no gradient."""
    return means.clamp(-LARGEST_MEAN, LARGEST_MEAN), (log_scales + FIRST_LOG_SCALE).clamp(*LOG_SCALES)


def log_prob_of_levels(levels: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """ln p of levels under logistic distributions; shapes broadcast.

    Args:
        levels: int64, 0 to 255.
        means, log_scales: `bounded`.
    """
    inverse = torch.exp(-log_scales)
    centre = (to_values(levels, means.dtype) - means) * inverse
    half = inverse / 255
    below = logsigmoid(centre + half).masked_fill(levels == LEVELS - 1, 0.0)  # of the upper edge of the bin
    above = logsigmoid(half - centre).masked_fill(levels == 0, 0.0)  # of the lower edge
    inner = torch.log(-torch.expm1(-2 * half)).broadcast_to(centre.shape)
    return below + above + inner.masked_fill((levels == 0) | (levels == LEVELS - 1), 0.0)


def every_level(like: Tensor) -> Tensor:
    """0 to 255 as int64 (256,), on the device of a tensor."""
    return torch.arange(LEVELS, device=like.device)


def sample_logistic(means: Tensor, log_scales: Tensor, generator: torch.Generator | None) -> Tensor:
    """Pixels in [-1, 1] of discretized logistics: a continuous one, rounded to the nearest level, has their p."""
    uniform = torch.rand(means.shape, generator=generator, dtype=means.dtype, device=means.device)
    uniform = uniform.clamp_(torch.finfo(means.dtype).tiny, 1 - torch.finfo(means.dtype).eps)
    return to_values(to_levels(means + log_scales.exp() * torch.logit(uniform)))
