"""The importance-weighted autoencoder: a VAE on a tighter bound. Burda et al. 2016, arXiv:1509.00519, equation 8.

    L_S = -ln 1/S sum_s w_s           w_s = p(x | z_s) p(z_s) / q(z_s | x)           z_s = mean + deviation * noise_s

Of one sample it is the bound of the VAE, with -ln p(z) + ln q(z | x) of that sample for its expectation, the KL.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from vqtok.baselines.base import BaselineOutput
from vqtok.baselines.configuration import BaselineConfig, MethodOptions
from vqtok.baselines.latent_variable import multi_sample_bound, per_dimension
from vqtok.baselines.vae import VAE

__all__ = ["IWAE", "IWAEConfig", "IWAEOptions"]


class IWAEOptions(MethodOptions):
    """Options of `iwae`."""

    type: Literal["iwae"] = "iwae"
    latent_dim: int = Field(10, ge=1, le=2**16, description="numbers for each position of the latent grid")
    num_samples: int = Field(5, ge=1, le=2**12, description="samples of the latents for each image in training")


class IWAEConfig(BaselineConfig):
    """Configuration of an IWAE."""

    model_type = "vqtok-iwae"
    method = IWAEOptions


class IWAE(VAE):
    """A VAE that is trained with several samples for each image."""

    config_class = IWAEConfig

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, *, reconstruct: bool = True
    ) -> BaselineOutput:
        self.checked_labels(labels, len(pixel_values))
        posterior = self.posterior(pixel_values)
        draw = self.draw(posterior, self.config.chosen.num_samples)
        parameters = self.decode(draw.latents)
        log_likelihood = self.log_likelihood(parameters, pixel_values)
        bound = multi_sample_bound(log_likelihood + draw.log_p - draw.log_q)
        nats = {"distortion": -log_likelihood.detach(), "rate": posterior.kl().detach()}
        return BaselineOutput(
            loss=per_dimension(-bound, pixel_values),
            losses={name: per_dimension(each, pixel_values) for name, each in nats.items()},
            reconstruction=self.likelihood.mean(parameters[: len(pixel_values)]) if reconstruct else None,
        )
