"""A softmax over the 256 levels of each channel: what van den Oord et al. 2017 train with on CIFAR-10 (section 4.1).

It knows nothing of the order of levels, and can be of any shape for it (van den Oord et al. 2016, arXiv:1601.06759,
section 3.4). A decoder gives 256 C channels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vqtok.losses.base import LEVELS, Likelihood, LikelihoodOptions, exact, to_values

__all__ = ["Categorical", "CategoricalOptions"]


class CategoricalOptions(LikelihoodOptions):
    """Options of `categorical`."""

    type: Literal["categorical"] = "categorical"


class Categorical(Likelihood):
    """p(level) is a softmax over 256 logits, which stand next to each other for each channel."""

    @property
    def num_parameters(self) -> int:
        return LEVELS * self.num_channels

    def logits(self, parameters: Tensor) -> Tensor:
        """(B, 256 C, H, W) as (B, H, W, C, 256), without a copy in channels_last."""
        logits: Tensor = exact(parameters).permute(0, 2, 3, 1).unflatten(-1, (self.num_channels, LEVELS))
        return logits

    def log_prob(self, parameters: Tensor, levels: Tensor) -> Tensor:
        logits = self.logits(parameters)
        wanted = levels.permute(0, 2, 3, 1)
        nats = cross_entropy(logits.reshape(-1, LEVELS), wanted.reshape(-1), reduction="none")
        return -nats.view(wanted.shape).permute(0, 3, 1, 2)

    def table(self, parameters: Tensor, levels: Tensor, channel: int) -> Tensor:
        return self.logits(parameters)[..., channel, :].softmax(-1)

    def mean(self, parameters: Tensor) -> Tensor:
        logits = self.logits(parameters)
        values = to_values(torch.arange(LEVELS, device=logits.device), logits.dtype)
        with torch.autocast(logits.device.type, enabled=False):  # which would multiply matrices in bfloat16
            return (logits.softmax(-1) @ values).permute(0, 3, 1, 2)

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        probabilities = self.logits(parameters).softmax(-1)
        levels = torch.multinomial(probabilities.flatten(0, -2), 1, generator=generator)
        return to_values(levels.view(probabilities.shape[:-1]).permute(0, 3, 1, 2))
