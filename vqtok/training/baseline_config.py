"""What decides the training of a baseline."""

from __future__ import annotations

from typing import Annotated, Self

import torch
from pydantic import Field, model_validator

from vqtok.baselines import BASELINE_TYPES, BaselineOptions, MethodOptions, build_baseline
from vqtok.baselines.vae import VAEOptions
from vqtok.training.config import ImageTrainingConfig

__all__ = ["BaselineTrainingConfig"]


class BaselineTrainingConfig(ImageTrainingConfig, BaselineOptions):
    """What decides the training of a baseline; `model` is what makes a configuration one of these."""

    model: Annotated[MethodOptions, BASELINE_TYPES] = Field(VAEOptions(), description="what is trained")
    bound_samples: Annotated[int | None, Field(ge=1)] = Field(
        None,
        description="samples of the latents for each held-out image, whose bound an evaluation gives; by default as "
        "many as in training",
    )

    @model_validator(mode="after")
    def _model_can_be_built(self) -> Self:
        """Refuse what makes no sense before data is looked for; on the meta device it costs no memory."""
        with torch.device("meta"):
            build_baseline(
                self.model.model_dump(),
                num_channels=1,
                image_size=self.network.downsample_factor,
                network=self.network.model_dump(),
                likelihood=self.likelihood.model_dump(),
                label_names=["0"] if self.model.needs_classes else None,
            )
        return self
