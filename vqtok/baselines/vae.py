"""The variational autoencoder. Kingma and Welling 2014, arXiv:1312.6114; with beta, Higgins et al. 2017.

    L = E_q[-ln p(x | z)] + beta KL(q(z | x) || N(0, 1))         q(z | x) = N(mean(x), diag deviation(x)^2)

z = mean + deviation * noise carries the gradient to the encoder (section 2.4); the KL has a closed form (appendix B).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from vqtok.baselines.base import BaselineOutput
from vqtok.baselines.configuration import BaselineConfig, MethodOptions
from vqtok.baselines.gaussian import DiagonalGaussian, log_normal
from vqtok.baselines.latent_variable import Draw, LatentVariableModel, per_dimension

__all__ = ["VAE", "VAEConfig", "VAEOptions"]


class VAEOptions(MethodOptions):
    """Options of `vae`."""

    type: Literal["vae"] = "vae"
    latent_dim: int = Field(10, ge=1, le=2**16, description="numbers for each position of the latent grid")
    beta: float = Field(1.0, ge=0, le=1e6, description="weight of the rate; 1 is the bound on the likelihood")


class VAEConfig(BaselineConfig):
    """Configuration of a VAE."""

    model_type = "vqtok-vae"
    method = VAEOptions


class VAE(LatentVariableModel):
    """Images to Gaussians over latents (B, latent_dim, h, w) and back."""

    config_class: type[BaselineConfig] = VAEConfig

    def __init__(self, config: BaselineConfig, *, class_dim: int = 0) -> None:
        self.latent_dim = latent_dim = config.chosen.latent_dim
        super().__init__(
            config, encoder_dim=2 * latent_dim, decoder_dim=latent_dim + class_dim, encoder_channels=class_dim
        )
        self.post_init()

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, *, reconstruct: bool = True
    ) -> BaselineOutput:
        labels = self.checked_labels(labels, len(pixel_values))
        posterior = self.posterior(pixel_values, labels)
        latents = posterior.at(posterior.noise(1))[0]
        parameters = self.decode(latents, labels)
        distortion = self.likelihood.loss(parameters, pixel_values)
        rate = per_dimension(posterior.kl(), pixel_values)
        return BaselineOutput(
            loss=distortion + self.config.chosen.beta * rate,
            losses={"distortion": distortion.detach(), "rate": rate.detach()},
            reconstruction=self.likelihood.mean(parameters) if reconstruct else None,
        )

    def posterior(self, pixel_values: Tensor, labels: Tensor | None = None) -> DiagonalGaussian:
        return DiagonalGaussian.of(self.encoder(self.checked(pixel_values)))

    def encode(self, pixel_values: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.posterior(pixel_values, self.checked_labels(labels, len(pixel_values))).mean

    def draw(self, posterior: DiagonalGaussian, num_samples: int = 1, generator: torch.Generator | None = None) -> Draw:
        noise = posterior.noise(num_samples, generator)
        latents = posterior.at(noise)
        return Draw(latents.flatten(0, 1), posterior.log_prob(noise), log_normal(latents))

    def sample_prior(self, num_images: int, generator: torch.Generator | None) -> Tensor:
        return torch.randn(num_images, self.latent_dim, *self.grid, generator=generator)
