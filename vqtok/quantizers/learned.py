"""A quantizer that goes on from codes that were learned before."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vqtok.quantizers.base import Quantizer
from vqtok.quantizers.codebook import CodebookQuantizer

__all__ = ["load_learned"]


@torch.no_grad()
def load_learned(quantizer: Quantizer, state: Mapping[str, Tensor], *, rows_in_batch: int) -> None:
    """Fill a quantizer from the state of another one with codes of the same shape, and with its training state.

    Where the other one never counted how often its codes are used, as without restarts, all count as used evenly, and
    by a moving average that is long from the start: the quick one of the first batches is for an encoder that has not
    learned anything yet, and would restart codes that two batches happen to leave unused.

    Args:
        rows_in_batch: rows of a training batch, N = B * h * w.
    """
    own = quantizer.state_dict()
    quantizer.load_state_dict({name: state.get(name, tensor) for name, tensor in own.items()})
    sharing = quantizer.num_codebooks // max(1, len(quantizer.members()))  # stages of one codebook
    for name, module in quantizer.named_modules():
        usage = module.usage if isinstance(module, CodebookQuantizer) else None
        if usage is not None and f"{name}.usage.cluster_size".removeprefix(".") not in state:
            usage.begin_evenly(rows_in_batch * sharing)
            module.noise.batches_seen.clamp_(min=usage.batches_until_full_decay())
