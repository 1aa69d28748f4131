"""From images to a tokenizer or a baseline, from codes to a prior: one loop, a task for each, and checkpoints."""

from __future__ import annotations

from vqtok.training.baseline import train_baseline
from vqtok.training.baseline_config import BaselineTrainingConfig
from vqtok.training.config import TokenizerTrainingConfig
from vqtok.training.images import open_training_images
from vqtok.training.loop import TrainingResult
from vqtok.training.prior import train_prior
from vqtok.training.prior_config import PriorTrainingConfig
from vqtok.training.resolution import resolve_config, resume_config
from vqtok.training.runs import check_run
from vqtok.training.tokenizer import train_tokenizer

__all__ = [
    "BaselineTrainingConfig",
    "PriorTrainingConfig",
    "TokenizerTrainingConfig",
    "TrainingResult",
    "check_run",
    "open_training_images",
    "resolve_config",
    "resume_config",
    "train_baseline",
    "train_prior",
    "train_tokenizer",
]
