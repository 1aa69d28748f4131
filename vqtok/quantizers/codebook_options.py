"""What can be chosen of every learned codebook, and of those whose latents take the nearest code."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vqtok.options import TrainingOnly
from vqtok.quantizers.base import QuantizerOptions

__all__ = ["CodebookOptions", "NearestCodeOptions"]


class CodebookOptions(QuantizerOptions):
    """What every learned codebook has."""

    codebook_size: int = Field(512, ge=2, le=2**32, description="number of codes, K")
    code_dim: int = Field(64, ge=1, le=2**16, description="dimension of the latents, D")
    projection_dim: int = Field(
        0, ge=0, description="dimension of the codes, between learned linear maps in and out; 0 for no projection"
    )
    metric: Literal["cosine", "euclidean"] = Field(
        "euclidean", description="how latents and codes are compared; cosine brings both to unit length"
    )
    init: Annotated[Literal["data", "kmeans", "normal"], TrainingOnly()] = Field(
        "data",
        description="codes start on latents of the first training batch (data), on centres of k-means on it, or "
        "normally distributed with standard deviation 1 / sqrt(d)",
    )
    entropy_weight: Annotated[float, TrainingOnly()] = Field(
        0.0,
        ge=0,
        description="weight of the entropy term in nats: each latent sure of its code, all codes in use alike",
    )
    entropy_temperature: Annotated[float, TrainingOnly()] = Field(
        1.0, gt=0, description="temperature of the soft assignments of the entropy term"
    )

    @model_validator(mode="after")
    def _projection_is_lower(self) -> Self:
        if self.projection_dim > self.code_dim:
            raise ValueError(
                f"projection_dim must be at most code_dim {self.code_dim}, or 0 for none, got {self.projection_dim}"
            )
        return self


class NearestCodeOptions(CodebookOptions):
    """What methods have whose latents take the nearest code."""

    beta: Annotated[float, TrainingOnly()] = Field(
        0.25, ge=0, description="weight of the commitment loss, ||z - sg[e]||^2"
    )
    gradient: Annotated[Literal["rotation", "straight-through"], TrainingOnly()] = Field(
        "straight-through", description="how the gradient passes from the codes to the latents"
    )
