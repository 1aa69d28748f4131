"""How probable codes are under a prior of any architecture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vqtok.priors.architecture import Prior
from vqtok.priors.binding import PriorBinding
from vqtok.priors.registry import architecture_of

__all__ = ["code_logits", "negative_log_likelihood", "training_loss"]


def code_logits(prior: Prior, codes: Tensor, classes: Tensor) -> Tensor:
    """Logits of every code given those before it.

    Args:
        prior: of any architecture.
        codes: int64 (B, L) in the order in which a prior reads them, each in [0, K).
        classes: int64 (B,), the null class where there is none.

    Returns:
        float (B, L, K); position i depends on the codes before i only.
    """
    return architecture_of(prior).code_logits(prior, codes, classes)


def training_loss(prior: Prior, codes: Tensor, classes: Tensor) -> Tensor:
    """Mean nats per code to train on; arguments as in `code_logits`."""
    return architecture_of(prior).training_loss(prior, codes, classes)


@torch.no_grad()
def negative_log_likelihood(prior: Prior, codes: Tensor, labels: int | Sequence[int] | Tensor | None = None) -> Tensor:
    """-ln p(codes | label), exactly.

    Args:
        prior: of any architecture; put it in evaluation mode first, for dropout would make this a random number.
        codes: (B, h, w[, Q]).
        labels: class numbers, dealt in turn to the images; None asks for p(codes) of the null class.

    Returns:
        float (B,), nats per image. Divided by L ln 2 these are bits per code.

    Raises:
        DataError: codes of another shape or outside [0, K).
        ConfigurationError: a label out of range, or labels for a prior without classes.
    """
    binding = PriorBinding.from_config(prior.config)
    flat = binding.flatten(codes).to(prior.device)
    classes = binding.classes(labels, len(flat)).to(prior.device)
    logits = code_logits(prior, flat, classes)
    nats = F.cross_entropy(logits.flatten(0, 1).float(), flat.flatten(), reduction="none")
    return nats.view_as(flat).sum(dim=1)
