"""Numbers that are not finite end a run before they are saved: losses, weights, and what an evaluation gives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.utils import get_total_norm

from vqtok.errors import TrainingError
from vqtok.training.optimization import OptimizedModel

__all__ = ["LossWindow", "check_evaluation", "check_weights"]


def not_finite(what: str) -> TrainingError:
    """The error for a run whose numbers went wrong."""
    return TrainingError(
        f"{what}; such weights are not saved, and checkpoints from before stay. Try a lower learning_rate, a longer "
        "warmup_steps or precision=no"
    )


def check_weights(models: Iterable[OptimizedModel], step: int) -> None:
    """Refuse to save weights and buffers that nothing can be computed with; the same on every process.

    Raises:
        TrainingError: their norm is not finite, be it for one of them or because float32 cannot hold its square.
    """
    tensors = [tensor for each in models for tensor in each.model.state_dict().values() if tensor.is_floating_point()]
    norm = float(get_total_norm(tensors))
    if not math.isfinite(norm):
        raise not_finite(f"the weights after step {step} have the norm {norm}")


def check_evaluation(metrics: Mapping[str, float], step: int) -> None:
    """Refuse a model whose held-out numbers say that it computes nothing.

    Raises:
        TrainingError: one of them is not finite; names them.
    """
    bad = ", ".join(f"{name} {value}" for name, value in metrics.items() if not math.isfinite(value))
    if bad:
        raise not_finite(f"the evaluation after step {step} is not finite: {bad}")


class LossWindow:
    """Losses since the last look, kept on the device so that looking is the only time the host waits."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.rows: list[Tensor] = []

    def add(self, losses: dict[str, Tensor]) -> None:
        """Remember one batch's scalars."""
        self.names = list(losses)
        self.rows.append(torch.stack([loss.detach().float() for loss in losses.values()]))

    def close(self, accelerator: Accelerator, step: int) -> dict[str, float]:
        """Means over the window and all processes; the window starts anew.

        Raises:
            TrainingError: a loss was not finite on some process; names the step and the parts, on every process.
        """
        rows = accelerator.reduce(torch.stack(self.rows), reduction="mean")
        finite = rows.isfinite().all(dim=1)
        if not bool(finite.all()):
            bad = int((~finite).int().argmax())
            parts = ", ".join(f"{name} {value:.6g}" for name, value in zip(self.names, rows[bad].tolist(), strict=True))
            at = step - (len(rows) - 1 - bad) // accelerator.gradient_accumulation_steps
            raise not_finite(f"the loss is not finite at step {at}: {parts}")
        self.rows.clear()
        return dict(zip(self.names, rows.mean(dim=0).tolist(), strict=True))
