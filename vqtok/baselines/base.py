"""What every baseline does: encode, decode, reconstruct, interpolate, and sample where it has a prior."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from vqtok.baselines.configuration import BaselineConfig
from vqtok.errors import ConfigurationError
from vqtok.hub import push_model
from vqtok.losses import build_reconstruction
from vqtok.networks import build_networks
from vqtok.pretrained import ImageModel

__all__ = ["Baseline", "BaselineOutput"]

AT_ONCE = 128  # images that are decoded together where nothing is learned


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
