"""A model, the optimizer that moves it, and the learning rate of a step."""

from __future__ import annotations

import math
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vqtok.training.config import LoopConfig

__all__ = ["OptimizedModel", "build_optimizer", "learning_rate_at"]

# CIFAR-10, 2,500 steps of 2e-3: test MSE over variance 0.0576 with 0.99 for the second moment, 0.0593 with 0.999.
BETAS = (0.9, 0.99)


def build_optimizer(model: nn.Module, config: LoopConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019), without decay for biases, norms and codebooks."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    decayed = [p for name, p in named if p.ndim >= 2 and not name.endswith("codebook")]
    plain = [p for name, p in named if p.ndim < 2 or name.endswith("codebook")]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=BETAS, fused=True)


def learning_rate_at(step: int, config: LoopConfig) -> float:
    """Rate of the step that follows `step` finished ones: linear warm-up, then a cosine that ends at zero."""
    warmup = config.warmup_steps or 0
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, config.steps - warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


class OptimizedModel:
    """A model and its optimizer, prepared for the processes of a run; a task may hold several.

    Args:
        model: the module whose forward computes the loss, or what the loss is computed from.
        config: says the weight decay, the norm that gradients are clipped to and whether to compile.
        accelerator: of the run; its checkpoints hold the model and the optimizer from now on.
    """

    def __init__(self, model: nn.Module, config: LoopConfig, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.max_grad_norm = config.max_grad_norm
        optimizer = build_optimizer(model, config)
        if config.compile:
            model.compile()  # in place, so that checkpoints hold the same names with and without
        self.prepared: Any
        self.prepared, self.optimizer = accelerator.prepare(model, optimizer)
        if isinstance(self.prepared, DistributedDataParallel):  # codebooks in buffers move alike on every process
            self.prepared.broadcast_buffers = False  # an argument of this name warns from torch 2.13 on

    @property
    def model(self) -> Any:
        """The model as it was given, without what several processes wrap around it."""
        return self.accelerator.unwrap_model(self.prepared)

    def set_learning_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def step(self, loss: Tensor) -> None:
        """Follow the gradient of a loss; of an accumulated batch, weights move with its last part."""
        self.accelerator.backward(loss)
        if self.accelerator.sync_gradients and self.max_grad_norm > 0:
            self.accelerator.clip_grad_norm_(self.prepared.parameters(), self.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
