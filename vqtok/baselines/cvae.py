"""The conditional variational autoencoder: encoder and decoder see the class c. Sohn et al. 2015; Kingma et al. 2014.

    L = E_q[-ln p(x | z, c)] + beta KL(q(z | x, c) || N(0, 1))

The prior does not see it: z holds what the class does not say, and an image of a class is made of any z.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vqtok.baselines.configuration import BaselineConfig
from vqtok.baselines.gaussian import DiagonalGaussian
from vqtok.baselines.vae import VAE, VAEOptions

__all__ = ["CVAE", "CVAEConfig", "CVAEOptions"]


class CVAEOptions(VAEOptions):
    """Options of `cvae`."""

    needs_classes = True

    type: Literal["cvae"] = "cvae"  # type: ignore[assignment]  # another name than that of the vae
    class_dim: int = Field(16, ge=1, le=2**12, description="channels in which encoder and decoder are told the class")


class CVAEConfig(BaselineConfig):
    """Configuration of a CVAE; `label_names` are its classes."""

    model_type = "vqtok-cvae"
    method = CVAEOptions


class CVAE(VAE):
    """A VAE for each class, that share their networks.

    The class is an embedding of `class_dim` channels, the same at every position, beside the pixels for the encoder and
    beside the latents for the decoder.
    """

    config_class = CVAEConfig

    def __init__(self, config: CVAEConfig) -> None:
        class_dim = config.chosen.class_dim
        super().__init__(config, class_dim=class_dim)
        self.class_embedding = nn.Embedding(len(self.label_names), class_dim)

    def posterior(self, pixel_values: Tensor, labels: Tensor | None = None) -> DiagonalGaussian:
        return DiagonalGaussian.of(self.encoder(self.beside(self.checked(pixel_values), labels)))

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        parameters: Tensor = self.decoder(self.beside(latents.to(self.dtype), labels))
        return parameters

    def beside(self, maps: Tensor, labels: Tensor | None) -> Tensor:
        """Maps (B, D, h, w) with the channels of the class after their own."""
        if labels is None or len(labels) != len(maps):
            self.checked_labels(labels, len(maps))  # which says what is wrong
        classes = self.class_embedding(labels)[:, :, None, None]
        return torch.cat([maps, classes.expand(-1, -1, *maps.shape[2:]).to(maps.dtype)], dim=1)
