"""An autoencoder: latents that nothing limits, so that it says how well the networks alone can reconstruct.

It has no prior. What it was trained on cannot be sampled anew, and its latents cost no finite number of bits.
"""

from __future__ import annotations

from typing import Any, Literal, NoReturn

from pydantic import Field
from torch import Tensor

from vqtok.baselines.base import Baseline, BaselineOutput
from vqtok.baselines.configuration import BaselineConfig, MethodOptions
from vqtok.errors import ConfigurationError

__all__ = ["Autoencoder", "AutoencoderConfig", "AutoencoderOptions"]


class AutoencoderOptions(MethodOptions):
    """Options of `autoencoder`."""

    needs_likelihood = False

    type: Literal["autoencoder"] = "autoencoder"
    latent_dim: int = Field(10, ge=1, le=2**16, description="numbers for each position of the latent grid")


class AutoencoderConfig(BaselineConfig):
    """Configuration of an Autoencoder."""

    model_type = "vqtok-autoencoder"
    method = AutoencoderOptions


class Autoencoder(Baseline):
    """Images to latents (B, latent_dim, h, w) and back; the loss is that of the reconstruction alone."""

    config_class = AutoencoderConfig

    def __init__(self, config: AutoencoderConfig) -> None:
        latent_dim = config.chosen.latent_dim
        super().__init__(config, encoder_dim=latent_dim, decoder_dim=latent_dim)
        self.post_init()

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, *, reconstruct: bool = True
    ) -> BaselineOutput:
        parameters = self.decode(self.encode(pixel_values, labels))
        loss = self.likelihood.loss(parameters, pixel_values)
        return BaselineOutput(
            loss=loss,
            losses={"reconstruction": loss.detach()},
            reconstruction=self.likelihood.mean(parameters) if reconstruct else None,
        )

    def encode(self, pixel_values: Tensor, labels: Tensor | None = None) -> Tensor:
        self.checked_labels(labels, len(pixel_values))
        latents: Tensor = self.encoder(self.checked(pixel_values))
        return latents

    def sample(self, num_images: int, labels: Tensor | None = None, *, seed: int | None = None) -> NoReturn:
        raise no_prior("sample")

    def bound(self, pixel_values: Tensor, labels: Tensor | None = None, num_samples: int = 1, **_: Any) -> NoReturn:
        """An autoencoder bounds no probability of an image. Raises ConfigurationError."""
        raise no_prior("bound the probability of an image with")


def no_prior(wish: str) -> ConfigurationError:
    return ConfigurationError(
        f"an autoencoder has no prior to {wish}: train a vae, or a VQ-VAE and a prior over its codes"
    )
