"""What decides the training of a prior."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from vqtok.priors import ARCHITECTURE_TYPES, PriorOptions
from vqtok.priors.transformer import TransformerOptions
from vqtok.training.config import LoopConfig

__all__ = ["PriorTrainingConfig"]


class PriorTrainingConfig(LoopConfig):
    """What decides the training of a prior."""

    codes: str = Field(description="codes folder, as vqtok tokenize writes it")
    arch: Annotated[PriorOptions, ARCHITECTURE_TYPES] = Field(TransformerOptions(), description="architecture")
    label_column: str | None = Field(None, description="column of the labels, where several columns could be it")
    unconditional: bool = Field(False, description="train without classes though the codes have labels")
    class_dropout: float = Field(
        0.1, ge=0, lt=1, description="share of training images whose class is hidden, which guidance needs"
    )
    test_share: float = Field(
        0.1, gt=0, lt=1, description="share of the training codes held out where there is no test split"
    )
    eval_images: int = Field(2000, ge=0, description="held-out images looked at during training; 0 looks at all")
    batch_size: int = Field(64, ge=1, description="images a step, over all processes and accumulated parts")
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate: linear warm-up, then cosine to zero")
    longest_warmup: ClassVar[int] = 100
    weight_decay: float = Field(0.05, ge=0, description="weight decay of AdamW, on weights of two and more dimensions")
