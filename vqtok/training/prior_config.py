"""What decides the training of a prior."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from vqtok.priors import ARCHITECTURE_TYPES, ARCHITECTURES, PriorOptions
from vqtok.priors.transformer import TransformerOptions
from vqtok.training.config import LoopConfig

__all__ = ["PriorTrainingConfig"]


class PriorTrainingConfig(LoopConfig):
    """What decides the training of a prior."""

    codes: str = Field(description="codes to train on: a codes folder, parquet files, or a dataset on the Hub")
    arch: Annotated[PriorOptions, ARCHITECTURE_TYPES] = Field(
        TransformerOptions(), description="architecture of the prior"
    )
    label_column: str | None = Field(None, description="column of the labels, if the codes have several")
    unconditional: bool = Field(False, description="ignore the labels of the codes and train without classes")
    class_dropout: float = Field(
        0.1, ge=0, lt=1, description="share of training images whose class is hidden; guidance needs some"
    )
    test_share: float = Field(
        0.1, gt=0, lt=1, description="share of the training codes to hold out if there is no test split"
    )
    batch_size: int = Field(64, ge=1, description="images per optimizer step, over all processes and accumulated parts")
    optimizer: Literal["adamw", "muon"] = Field(
        "muon", description="what moves the layers, AdamW moves all else; of a pixelcnn by default adamw"
    )
    warmup_part: ClassVar[int] = 5
    longest_warmup: ClassVar[int] = 100
    weight_decay: float = Field(0.05, ge=0, description="weight decay of weights of two and more dimensions")

    @model_validator(mode="before")
    @classmethod
    def _optimizer_of_the_architecture(cls, given: dict[str, Any]) -> dict[str, Any]:
        arch = ARCHITECTURE_TYPES.entries(given.get("arch", {}))["type"]
        return {"optimizer": ARCHITECTURES[arch].optimizer} | given
