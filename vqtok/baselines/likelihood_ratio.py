"""The plain likelihood-ratio gradient with a learned baseline: NVIL, Mnih and Gregor 2014, arXiv:1402.0030.

Of the bound L = ln 1/S sum_s w_s on ln p(x), which of one sample is that of the VAE, the gradient is

    sum_s (L - b(x)) grad ln q(z_s | x)  +  sum_s w_s / (sum_j w_j) grad ln w_s

A small network b learns by least squares what L to expect of an image (section 2.3). It does not see the codes, so that
the gradient is unbiased. Every sample gets credit for what all of them did; compare with VIMCO. The division by a
running deviation of the signal (section 2.3.2), which biases the length of the gradient, is left out.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from vqtok.baselines.categorical import CategoricalModel, CategoricalOptions
from vqtok.baselines.configuration import BaselineConfig
from vqtok.baselines.latent_variable import dimensions, multi_sample_bound
from vqtok.losses.base import exact

__all__ = ["LikelihoodRatio", "LikelihoodRatioConfig", "LikelihoodRatioOptions"]

WIDTH = 32  # channels of the network that expects


class LikelihoodRatioOptions(CategoricalOptions):
    """Options of `likelihood-ratio`."""

    type: Literal["likelihood-ratio"] = "likelihood-ratio"
    num_samples: int = Field(1, ge=1, le=2**12, description="samples of the codes for each image in training")
    baseline: Literal["learned", "none"] = Field(
        "learned", description="what is taken off the learning signal: what a small network expects of the image, or 0"
    )


class LikelihoodRatioConfig(BaselineConfig):
    """Configuration of a LikelihoodRatio."""

    model_type = "vqtok-likelihood-ratio"
    method = LikelihoodRatioOptions


class LikelihoodRatio(CategoricalModel):
    """Codes that learn from how good the bound was."""

    config_class = LikelihoodRatioConfig

    def __init__(self, config: LikelihoodRatioConfig) -> None:
        super().__init__(config)
        self.expected = None if config.chosen.baseline == "none" else Expectation(config.num_channels)
        self.post_init()

    def signals(self, log_weights: Tensor, pixel_values: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        bound = multi_sample_bound(log_weights)
        if self.expected is None:
            return bound.expand_as(log_weights), {}
        expected = self.expected(self.checked(pixel_values))
        size = dimensions(pixel_values)
        error = (bound / size - expected).square().mean().float()
        return (bound - size * expected.detach()).expand_as(log_weights), {"baseline_error": error}


class Expectation(nn.Sequential):
    """Pixels (B, C, H, W) -> the bound to expect in nats per dimension, (B,)."""

    def __init__(self, num_channels: int) -> None:
        super().__init__(
            nn.Conv2d(num_channels, WIDTH, kernel_size=3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, kernel_size=3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(WIDTH, 1),
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        return exact(super().forward(pixel_values)).squeeze(1)
