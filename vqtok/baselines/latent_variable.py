"""Models with a prior and a posterior: the bound on the probability of an image that they are trained with.

A model of images x with latents z, a prior p(z), a decoder p(x | z) and an encoder q(z | x) bounds

    -ln p(x) <= E_q[-ln p(x | z)] + KL(q(z | x) || p(z))                         distortion and rate

and, with S samples z_1 .. z_S of q(z | x) (Burda et al. 2016, arXiv:1509.00519, equation 8),

    -ln p(x) <= E[-ln 1/S sum_s w_s]                              w_s = p(x | z_s) p(z_s) / q(z_s | x)

which falls with S and is the first where S is 1. A file of this package says what q and p are and how q learns.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from vqtok.baselines.base import Baseline
from vqtok.errors import ConfigurationError
from vqtok.losses import Likelihood

__all__ = ["Bound", "Draw", "LatentVariableModel", "Posterior", "dimensions", "multi_sample_bound", "per_dimension"]

DRAWN_AT_ONCE = 16  # samples of the latents of all images of a batch


class Bound(NamedTuple):
    """A bound on -ln p(x) and its parts, nats per image: float64 (B,) each, or float32 where a device has no float64.

    Attributes:
        distortion: -ln p(x | z), the mean over the samples of z.
        rate: KL(q(z | x) || p(z)), in closed form.
        total: the bound. Of one sample it is distortion + rate; of several it is, in expectation, at most that.
    """

    distortion: Tensor
    rate: Tensor
    total: Tensor


class Posterior(Protocol):
    """q(z | x) of B images."""

    def kl(self) -> Tensor:
        """KL(q(z | x) || p(z)) in nats per image: (B,)."""


class Draw(NamedTuple):
    """S samples of q(z | x) for each of B images.

    Attributes:
        latents: what the decoder takes, (S * B, D, h, w): all images of the first sample, then those of the second.
        log_q: ln q(z | x) in nats, (S, B), with its gradient.
        log_p: ln p(z) in nats, (S, B).
    """

    latents: Tensor
    log_q: Tensor
    log_p: Tensor


class LatentVariableModel(Baseline):
    """A baseline with a prior and a posterior, so that it bounds the probability of an image."""

    likelihood: Likelihood  # the configuration refuses a reconstruction loss that is none

    @abstractmethod
    def posterior(self, pixel_values: Tensor, labels: Tensor | None = None) -> Any:
        """q(z | x), a `Posterior` of the model's own."""

    @abstractmethod
    def draw(self, posterior: Any, num_samples: int = 1, generator: torch.Generator | None = None) -> Draw:
        """Samples of q(z | x), S of each image; the generator is of the model's device."""

    @abstractmethod
    def sample_prior(self, num_images: int, generator: torch.Generator | None) -> Tensor:
        """Latents (B, D, h, w) of the prior, on the CPU or the device; the generator is of the CPU."""

    def log_likelihood(self, parameters: Tensor, pixel_values: Tensor) -> Tensor:
        """ln p(x | z) in nats, (S, B), by what `decode` gives of a draw, (S * B, num_parameters, H, W)."""
        samples = len(parameters) // len(pixel_values)
        nats = self.likelihood.negative_log_likelihood(parameters, pixel_values.repeat(samples, 1, 1, 1))
        return -nats.view(samples, -1)

    @torch.no_grad()
    def sample(
        self,
        num_images: int,
        labels: Tensor | None = None,
        *,
        seed: int | None = None,
    ) -> Tensor:
        if num_images < 1:
            raise ConfigurationError(f"num_images must be at least 1, got {num_images}")
        labels = self.checked_labels(labels, num_images)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return self.pixels_of(self.sample_prior(num_images, generator).to(self.device), labels)

    @torch.no_grad()
    def bound(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        num_samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> Bound:
        """A bound on -ln p(x) of pixel values (B, C, H, W), in nats per image.

        Args:
            labels: classes (B,); the bound is then one on -ln p(x | class).
            num_samples: S. One takes the KL in closed form, several the bound of the weights w, see above; they are
                decoded one after another.
            generator: of the noise, on the model's device; the global one where not given.

        Raises:
            ConfigurationError: pixels or labels that do not fit the model, or less than one sample.
        """
        if num_samples < 1:
            raise ConfigurationError(f"num_samples must be at least 1, got {num_samples}")
        labels = self.checked_labels(labels, len(pixel_values))
        pixels = pixel_values.to(self.device)
        posterior = self.posterior(pixels, labels)
        likelihoods, weights = [], []
        for first in range(0, num_samples, DRAWN_AT_ONCE):
            draw = self.draw(posterior, min(DRAWN_AT_ONCE, num_samples - first), generator)
            decoded = (self.decode(latents, labels) for latents in draw.latents.split(len(pixels)))
            likelihoods.append(torch.cat([self.log_likelihood(parameters, pixels) for parameters in decoded]))
            weights.append(likelihoods[-1] + draw.log_p - draw.log_q)
        distortion = -torch.cat(likelihoods).mean(0)
        rate = posterior.kl().to(distortion.dtype)
        total = distortion + rate if num_samples == 1 else -multi_sample_bound(torch.cat(weights))
        return Bound(distortion, rate, total)


def multi_sample_bound(log_weights: Tensor) -> Tensor:
    """ln 1/S sum_s w_s, which in expectation is at most ln p(x): (S, B) -> (B,)."""
    return torch.logsumexp(log_weights, dim=0) - math.log(len(log_weights))


def per_dimension(nats: Tensor, pixel_values: Tensor) -> Tensor:
    """The mean of nats per image as nats per dimension: a scalar."""
    return (nats.mean() / dimensions(pixel_values)).float()


def dimensions(pixel_values: Tensor) -> int:
    """C H W, by which nats per image become nats per dimension."""
    return pixel_values[0].numel()
