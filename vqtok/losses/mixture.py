"""A mixture of discretized logistics, in which a channel knows those before it: Salimans et al. 2017, section 2.2.

arXiv:1701.05517. At each position of an image M components are mixed for all channels together, and the mean of channel
c moves with the levels that the channels before it turned out to have:

    p(x_1 .. x_C) = sum_m w_m prod_c logistic(x_c; mean_mc + sum_{j<c} tanh(a_mcj) x_j, scale_mc)

A decoder gives, for each position, M logits of w, M C means, M C logarithms of scales and M C (C - 1) / 2 numbers a, in
this order.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import one_hot

from vqtok.losses.base import Likelihood, LikelihoodOptions, exact, to_levels, to_values
from vqtok.losses.logistic import bounded, every_level, log_prob_of_levels, sample_logistic

__all__ = ["LogisticMixture", "MixtureOptions"]


class MixtureOptions(LikelihoodOptions):
    """Options of `mixture`."""

    type: Literal["mixture"] = "mixture"
    num_components: int = Field(10, ge=1, le=2**10, description="logistic distributions that are mixed")


class Parts(NamedTuple):
    """What a decoder gave: weights are (B, M, H, W), means and scales (B, M, C, H, W), slopes (B, M, pairs, H, W)."""

    log_weights: Tensor
    means: Tensor
    log_scales: Tensor
    slopes: Tensor


class LogisticMixture(Likelihood):
    """Options: of `MixtureOptions`."""

    def __init__(self, *, num_channels: int, **options: Any) -> None:
        super().__init__(num_channels=num_channels)
        self.num_components = MixtureOptions(**options).num_components
        self.sizes = [1, num_channels, num_channels, num_channels * (num_channels - 1) // 2]

    @property
    def num_parameters(self) -> int:
        return self.num_components * sum(self.sizes)

    def parts(self, parameters: Tensor) -> Parts:
        blocks = exact(parameters).split([self.num_components * size for size in self.sizes], dim=1)
        logits, means, log_scales, slopes = (
            block.unflatten(1, (self.num_components, size)) for block, size in zip(blocks, self.sizes, strict=True)
        )
        return Parts(logits.squeeze(2).log_softmax(1), *bounded(means, log_scales), slopes.tanh())

    def conditional_means(self, parts: Parts, values: Tensor) -> Tensor:
        """Means (B, M, C, H, W) of channels given the values before them, (B, C, H, W) or (B, M, C, H, W)."""
        values = values if values.ndim == 5 else values[:, None]
        means = list(parts.means.unbind(2))
        slope = iter(parts.slopes.unbind(2))
        for channel in range(self.num_channels):
            for before in range(channel):
                means[channel] = means[channel] + next(slope) * values[:, :, before]
        return torch.stack(means, dim=2)

    def log_prob(self, parameters: Tensor, levels: Tensor) -> Tensor:
        """Of channel c it is ln p(x_1 .. x_c) - ln p(x_1 .. x_{c-1})."""
        parts = self.parts(parameters)
        means = self.conditional_means(parts, to_values(levels, parts.means.dtype))
        each = log_prob_of_levels(levels[:, None], means, parts.log_scales)
        so_far = torch.logsumexp(parts.log_weights[:, :, None] + each.cumsum(2), dim=1)
        return torch.cat([so_far[:, :1], so_far.diff(dim=1)], dim=1)

    def table(self, parameters: Tensor, levels: Tensor, channel: int) -> Tensor:
        """The components, weighted by how well each explains the channels before."""
        parts = self.parts(parameters)
        means = self.conditional_means(parts, to_values(levels, parts.means.dtype))
        before = log_prob_of_levels(levels[:, None, :channel], means[:, :, :channel], parts.log_scales[:, :, :channel])
        weights = (parts.log_weights + before.sum(2)).log_softmax(1)
        each = log_prob_of_levels(
            every_level(means), means[:, :, channel, ..., None], parts.log_scales[:, :, channel, ..., None]
        )
        return torch.logsumexp(weights[..., None] + each, dim=1).exp()

    def loss(self, parameters: Tensor, pixels: Tensor) -> Tensor:
        """As of any likelihood, without the logsumexp of the channels before the last, which cancel."""
        levels = to_levels(pixels)
        parts = self.parts(parameters)
        means = self.conditional_means(parts, to_values(levels, parts.means.dtype))
        each = log_prob_of_levels(levels[:, None], means, parts.log_scales).sum(2)
        return -torch.logsumexp(parts.log_weights + each, dim=1).mean() / self.num_channels

    def mean(self, parameters: Tensor) -> Tensor:
        """The mean over components of their means before they are cut into levels, none of which is beyond an edge.

        A component far below black is all in level 0, and would outweigh the others by what it is below it.
        """
        parts = self.parts(parameters)
        means = parts.means.clamp(-1, 1)
        for channel in range(1, self.num_channels):  # the mean of a channel follows from the means of those before it
            found = self.conditional_means(parts, means)[:, :, channel : channel + 1].clamp(-1, 1)
            means = torch.cat([means[:, :, :channel], found, means[:, :, channel + 1 :]], 2)
        return (parts.log_weights.exp()[:, :, None] * means).sum(1)

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        parts = self.parts(parameters)
        weights = parts.log_weights.exp().movedim(1, -1)
        chosen = torch.multinomial(weights.flatten(0, -2), 1, generator=generator).view(weights.shape[:-1])
        mask = one_hot(chosen, self.num_components).movedim(-1, 1)[:, :, None].to(parts.means.dtype)
        one = Parts(
            *(part.unsqueeze(1) for part in (parts.log_weights[:, 0], *((part * mask).sum(1) for part in parts[1:])))
        )
        values = torch.zeros_like(one.means[:, 0])
        for channel in range(self.num_channels):
            means = self.conditional_means(one, values)[:, 0, channel]
            drawn = sample_logistic(means, one.log_scales[:, 0, channel], generator)
            values = torch.cat([values[:, :channel], drawn[:, None].to(values.dtype), values[:, channel + 1 :]], dim=1)
        return values
