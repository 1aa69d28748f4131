"""What decides a run, as keyword-only dataclasses that refuse numbers that make no sense; `resolution` fills them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from vqtok.errors import ConfigurationError, did_you_mean
from vqtok.networks import build_networks, network_options
from vqtok.quantizers import build_quantizer, quantizer_options
from vqtok.tokenizer.configuration import RESAMPLES, fill_options

__all__ = ["LoopConfig", "TokenizerTrainingConfig", "at_least"]

PRECISIONS = ("no", "bf16", "fp16")
# mnist-mini, hidden_size 32, mse over variance after 100, 300 (means of two seeds) and 1,000 steps (one seed):
# a twentieth 0.452, 0.132, 0.0615; a tenth 0.461, 0.134, 0.0588; a fifth 0.448, 0.127, 0.0581.
WARMUP_SHARE = 5
TRACKERS = ("none", "tensorboard", "trackio", "wandb")


@dataclass(kw_only=True)
class LoopConfig:
    """What decides any training run.

    Args:
        out: run folder.
        steps: optimizer steps.
        batch_size: examples a step, over all processes and accumulated parts.
        gradient_accumulation_steps: parts that a batch is computed in, to fit memory.
        learning_rate: peak of the schedule: linear warm-up, then cosine to zero.
        warmup_steps: steps of the warm-up; null takes a fifth of the steps, at most `longest_warmup`.
        weight_decay: AdamW's, on weights of two and more dimensions.
        max_grad_norm: gradients are clipped to this norm; 0 never clips.
        precision: "no" (float32), "bf16" or "fp16" autocast.
        compile: run the model through torch.compile.
        seed: of weights, order of examples and noise.
        num_workers: processes that decode images, where they are not held in memory.
        log_every, eval_every, checkpoint_every: in steps.
        keep_checkpoints: newest ones kept.
        tracker: "none", "tensorboard", "trackio" or "wandb".
    """

    out: str
    steps: int = 10_000
    batch_size: int = 32
    gradient_accumulation_steps: int = 1
    learning_rate: float = 1e-3
    warmup_steps: int | None = None
    longest_warmup: ClassVar[int] = 500
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    precision: str = "no"
    compile: bool = False
    seed: int = 0
    num_workers: int = 0
    log_every: int = 50
    eval_every: int = 1000
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    tracker: str = "none"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "gradient_accumulation_steps", "log_every", "eval_every"):
            at_least(name, getattr(self, name), 1)
        at_least("checkpoint_every", self.checkpoint_every, 1)
        at_least("keep_checkpoints", self.keep_checkpoints, 1)
        if self.warmup_steps is None:
            self.warmup_steps = min(self.longest_warmup, self.steps // WARMUP_SHARE)
        for name in ("warmup_steps", "weight_decay", "max_grad_norm", "num_workers", "seed"):
            at_least(name, getattr(self, name), 0)
        if not self.learning_rate > 0:
            raise ConfigurationError(f"learning_rate must be above 0, got {self.learning_rate}")
        one_of("precision", self.precision, PRECISIONS)
        one_of("tracker", self.tracker, TRACKERS)
        if self.batch_size % self.gradient_accumulation_steps:
            raise ConfigurationError(
                f"batch_size {self.batch_size} must divide by gradient_accumulation_steps "
                f"{self.gradient_accumulation_steps}"
            )


@dataclass(kw_only=True)
class TokenizerTrainingConfig(LoopConfig):
    """What decides the training of a tokenizer.

    Args:
        dataset: what `vqtok.data.open_images` takes.
        revision: of a Hub dataset.
        dataset_config: which configuration of a dataset that has several.
        image_column, label_column: names, where the feature types do not decide.
        test_share: of the training images, held out where the data has no test split.
        image_size: pixels, one number or [height, width]; null takes the images' own where they all agree.
        num_channels: 1 or 3; null takes the images' own.
        resample: how images are resized.
        network, quantizer: as in VQTokenizerConfig, what is left out filled with defaults.
        eval_images: held-out images looked at during training; 0 looks at all.
        usage_window: training images, over all processes, that the use of the codes is counted over.
        max_unreadable: share of the images that may be damaged; they are named and skipped. Above it the run stops.
        usage_warning: the log warns when the share of codes in use over that window falls under this; 0 never warns.
    """

    dataset: str = "mnist-mini"
    revision: str | None = None
    dataset_config: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    test_share: float = 0.1
    image_size: int | list[int] | None = None
    num_channels: int | None = None
    resample: str = "bicubic"
    network: dict[str, Any] = field(default_factory=lambda: {"type": "conv"})
    quantizer: dict[str, Any] = field(default_factory=lambda: {"type": "ema"})
    eval_images: int = 2000
    max_unreadable: float = 0.01
    usage_window: int = 8192
    usage_warning: float = 0.5
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.network = fill_options("network", self.network, "conv", network_options)
        self.quantizer = fill_options("quantizer", self.quantizer, "ema", quantizer_options)
        with torch.device("meta"):  # costs no memory, and refuses numbers that make no sense before data is looked for
            build_networks(self.network, num_channels=1, code_dim=build_quantizer(self.quantizer).code_dim)
        if self.num_channels not in (None, 1, 3):
            raise ConfigurationError(f"num_channels must be 1 (grey) or 3 (RGB), got {self.num_channels}")
        one_of("resample", self.resample, RESAMPLES)
        at_least("eval_images", self.eval_images, 0)
        at_least("usage_window", self.usage_window, 1)
        if not 0 <= self.max_unreadable < 1:
            raise ConfigurationError(f"max_unreadable must be at least 0 and below 1, got {self.max_unreadable}")
        if not 0 <= self.usage_warning <= 1:
            raise ConfigurationError(f"usage_warning must be between 0 and 1, got {self.usage_warning}")
        if not 0 < self.test_share < 1:
            raise ConfigurationError(f"test_share must be between 0 and 1, got {self.test_share}")


def at_least(name: str, value: float, smallest: float) -> None:
    if not value >= smallest:
        raise ConfigurationError(f"{name} must be at least {smallest}, got {value}")


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigurationError(
            f"{name} must be one of {', '.join(allowed)}, got {value!r}.{did_you_mean(value, allowed)}"
        )
