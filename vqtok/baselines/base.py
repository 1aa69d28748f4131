"""What every baseline does: encode, decode, reconstruct, interpolate; and what one with a prior does beyond that.

A model of images x with latents z, a prior p(z), a decoder p(x | z) and an encoder q(z | x) bounds

    -ln p(x) <= E_q[-ln p(x | z)] + KL(q(z | x) || p(z))                         distortion and rate

and, with S samples z_1 .. z_S of q(z | x) (Burda et al. 2016, arXiv:1509.00519, equation 8),

    -ln p(x) <= E[-ln 1/S sum_s w_s]                              w_s = p(x | z_s) p(z_s) / q(z_s | x)

which falls with S and is the first where S is 1. A file of this package says what q and p are and how q learns.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from vqtok.baselines.configuration import BaselineConfig
from vqtok.errors import ConfigurationError
from vqtok.hub import push_model
from vqtok.losses import Likelihood, build_reconstruction
from vqtok.networks import build_networks
from vqtok.pretrained import ImageModel

__all__ = ["Baseline", "BaselineOutput", "Bound", "Draw", "LatentVariableModel", "Posterior", "multi_sample_bound"]

AT_ONCE = 128  # images that are decoded together where nothing is learned
DRAWN_AT_ONCE = 16  # samples of the latents of all images of a batch


@dataclass
class BaselineOutput(ModelOutput):
    """What a forward pass gives.

    Attributes:
        loss: scalar; of a model with a likelihood in nats per dimension.
        losses: its parts, such as `distortion` and `rate`, each in nats per dimension; detached scalars.
        reconstruction: pixels (B, C, H, W), not clamped, of one sample of the latents; of a likelihood its mean.
    """

    loss: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    reconstruction: Tensor | None = None


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


class Baseline(ImageModel):
    """An encoder and a decoder on the networks of the tokenizer.

    Shapes: pixel values (B, C, H, W) in [-1, 1]; latents, what the decoder takes, (B, D, h, w) on the grid of the
    network; labels int64 (B,), the numbers of classes, for a model that is conditioned on them and for no other.

    Args:
        encoder_channels: beyond C, what the encoder takes.
        encoder_dim: channels that it gives.
        decoder_dim: channels that the decoder takes.
    """

    config: BaselineConfig
    kind = "baseline"
    base_model_prefix = "baseline"

    def __init__(
        self, config: BaselineConfig, *, encoder_dim: int, decoder_dim: int, encoder_channels: int = 0
    ) -> None:
        super().__init__(config)
        self.likelihood = build_reconstruction(config.likelihood, num_channels=config.num_channels)
        self.encoder, self.decoder = build_networks(
            config.network,
            num_channels=config.num_channels + encoder_channels,
            code_dim=decoder_dim,
            encoder_dim=encoder_dim,
            decoder_channels=self.likelihood.num_parameters,
        )

    @abstractmethod
    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, *, reconstruct: bool = True
    ) -> BaselineOutput:
        """What training makes small.

        Args:
            pixel_values: in [-1, 1]; a likelihood takes each for the level of 8 bits that is nearest.
            labels: numbers of classes.
            reconstruct: False leaves `reconstruction` out, which no loss needs.

        Raises:
            ConfigurationError: pixels or labels that do not fit the model.
        """

    @abstractmethod
    def encode(self, pixel_values: Tensor, labels: Tensor | None = None) -> Tensor:
        """The latents (B, D, h, w) that stand for images: of a posterior its mean, of codes the most probable ones."""

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """What the likelihood takes, (B, num_parameters, H, W), of latents (B, D, h, w)."""
        parameters: Tensor = self.decoder(latents.to(self.dtype))
        return parameters

    @torch.no_grad()
    def reconstruct(self, pixel_values: Tensor, labels: Tensor | None = None) -> Tensor:
        """Pixels (B, C, H, W) in [-1, 1] of the latents that `encode` gives, without noise."""
        return self.pixels_of(self.encode(pixel_values, labels), labels)

    @abstractmethod
    def sample(
        self,
        num_images: int,
        labels: Tensor | None = None,
        *,
        seed: int | None = None,
    ) -> Tensor:
        """New images: pixels (num_images, C, H, W) in [-1, 1], the mean of p(x | z) for latents z of the prior.

        Args:
            num_images: how many, at least 1.
            labels: int64 (num_images,), a class for each, for a model that is conditioned on them.
            seed: of the random numbers; None takes new ones each time.

        Raises:
            ConfigurationError: the model has no prior; labels that do not fit it.
        """

    @torch.no_grad()
    def interpolate(self, first: Tensor, second: Tensor, steps: int = 8, labels: Tensor | None = None) -> Tensor:
        """Images between pairs of images: pixels (B, steps, C, H, W) in [-1, 1].

        The latents of `encode` are mixed linearly, (1 - t) a + t b for `steps` values of t from 0 to 1, so that the
        ends are the reconstructions of `first` and `second`, each (B, C, H, W). Of discrete codes their embeddings are
        mixed, which between the ends are vectors that no code has.

        Args:
            labels: classes (B,) of both images of each pair.

        Raises:
            ConfigurationError: fewer than two steps, or another number of second images.
        """
        if steps < 2 or first.shape != second.shape:
            raise ConfigurationError(
                "interpolate takes as many second images as first ones and at least 2 steps, got "
                f"{tuple(first.shape)}, {tuple(second.shape)} and {steps} steps"
            )
        a, b = self.encode(first, labels), self.encode(second, labels)
        shares = torch.linspace(0, 1, steps, device=a.device, dtype=a.dtype)[:, None, None, None]
        mixed = torch.lerp(a[:, None], b[:, None], shares).flatten(0, 1)
        repeated = None if labels is None else labels.repeat_interleave(steps)
        pixels = self.pixels_of(mixed, repeated)
        return pixels.view(len(first), steps, *pixels.shape[1:])

    def pixels_of(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Pixels (B, C, H, W) in [-1, 1] of latents (B, D, h, w), some at a time."""
        groups = [None] * len(latents.split(AT_ONCE)) if labels is None else labels.split(AT_ONCE)
        parts = zip(latents.split(AT_ONCE), groups, strict=True)
        return torch.cat([self.likelihood.mean(self.decode(*part)).float().clamp(-1, 1) for part in parts])

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:  # type: ignore[override]
        """Baselines stay here, as they have no card. Raises CheckpointError; see `vqtok.hub.push_model`."""
        return push_model(self, repo_id, **kwargs)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes that the model is conditioned on; none for most."""
        return tuple(self.config.label_names or ())

    def checked_labels(self, labels: Any, count: int) -> Tensor | None:
        """Labels of so many images as int64 (B,) on the device of the model; None of a model without classes.

        Raises:
            ConfigurationError: labels for a model without classes, none for one with, or such as no class has.
        """
        number = len(self.label_names)
        if labels is None and not number:
            return None
        if labels is None or not number:
            what = "needs the classes of the images as labels" if number else "has no classes: leave the labels out"
            raise ConfigurationError(f"a model of type {self.config.model['type']} {what}")
        given = torch.as_tensor(labels)
        if given.is_floating_point() or given.shape != (count,):
            raise ConfigurationError(f"labels must be int64 ({count},), got {given.dtype} {tuple(given.shape)}")
        if count and not 0 <= int(given.min()) <= int(given.max()) < number:
            raise ConfigurationError(f"labels must be in [0, {number}), got {int(given.min())} to {int(given.max())}")
        return given.to(self.device, torch.int64)


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
