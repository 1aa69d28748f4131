"""What decides the training of a prior."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from vqtok.errors import ConfigurationError
from vqtok.priors import fill_prior_options
from vqtok.training.config import LoopConfig, at_least

__all__ = ["PriorTrainingConfig"]


@dataclass(kw_only=True)
class PriorTrainingConfig(LoopConfig):
    """What decides the training of a prior.

    Args:
        codes: codes folder.
        arch: `{"type": "transformer" | "pixelcnn", ...}` with options of vqtok.priors; what is left out is filled in.
        label_column: of the codes, where several columns could be it.
        unconditional: train without classes though the codes have labels.
        class_dropout: share of training images whose class is hidden, so that guidance has a null class to start from.
        test_share: of the training codes, held out where there is no test split.
        eval_images: held-out images looked at during training; 0 looks at all.
    """

    codes: str
    arch: dict[str, Any] = field(default_factory=lambda: {"type": "transformer"})
    label_column: str | None = None
    unconditional: bool = False
    class_dropout: float = 0.1
    test_share: float = 0.1
    eval_images: int = 2000
    batch_size: int = 64
    learning_rate: float = 1e-3
    longest_warmup: ClassVar[int] = 100
    weight_decay: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        self.arch = fill_prior_options(self.arch)
        at_least("eval_images", self.eval_images, 0)
        if not 0 <= self.class_dropout < 1:
            raise ConfigurationError(f"class_dropout must lie in [0, 1), got {self.class_dropout}")
        if not 0 < self.test_share < 1:
            raise ConfigurationError(f"test_share must be between 0 and 1, got {self.test_share}")
