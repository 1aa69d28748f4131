"""The accelerator of a run: its processes, its precision, its tracker."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from accelerate import Accelerator

from vqtok.errors import ConfigurationError, one_line
from vqtok.training.config import LoopConfig

__all__ = ["build_accelerator", "start_tracker"]


def build_accelerator(config: LoopConfig) -> Accelerator:
    """The accelerator of a run; `start_tracker` starts its tracker.

    Raises:
        ConfigurationError: the batch does not divide by the processes, the tracker is not installed, or the precision
            cannot be used.
    """
    tracker = None if config.tracker == "none" else config.tracker
    launched = int(os.environ.get("WORLD_SIZE", 1)) > 1  # as torchrun says; without a GPU accelerate asks for `cpu` too
    try:
        accelerator = Accelerator(
            cpu=launched and not torch.accelerator.is_available(),
            mixed_precision=config.precision,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            log_with=tracker,
            project_dir=config.out,
        )
    except ValueError as error:  # one that the device lacks, or a second one in one process
        raise ConfigurationError(f"precision {config.precision!r} cannot be used here: {one_line(error)}") from error
    except ImportError as error:
        raise ConfigurationError(
            f"the tracker {config.tracker!r} is not installed: pip install 'vqtok[trackers]'"
        ) from error
    parts = accelerator.num_processes * config.gradient_accumulation_steps
    if config.batch_size % parts:
        raise ConfigurationError(
            f"batch_size {config.batch_size} must divide by {accelerator.num_processes} processes x "
            f"{config.gradient_accumulation_steps} gradient_accumulation_steps"
        )
    if tracker and not accelerator.log_with:
        raise ConfigurationError(f"the tracker {config.tracker!r} is not installed: pip install 'vqtok[trackers]'")
    return accelerator


def start_tracker(accelerator: Accelerator, config: LoopConfig) -> None:
    """Tell the tracker which run this is; values that it cannot hold become text."""
    plain = {
        name: value if isinstance(value, int | float | str) else str(value)
        for name, value in config.model_dump().items()
    }
    accelerator.init_trackers(Path(config.out).name, config=plain)
