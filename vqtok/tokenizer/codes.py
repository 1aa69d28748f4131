"""Codes as `datasets`, NumPy, a prior or a person give them: one tensor of whole grids."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqtok.errors import ConfigurationError

__all__ = ["as_codes"]


def as_codes(codes: Any, grid: tuple[int, int], num_codebooks: int) -> Tensor:
    """Codes of any integer type as one tensor.

    Args:
        codes: a tensor, an array, nested lists or a column of a dataset: (B, h, w), or (B, h, w, Q) where Q > 1; also
            one grid without B, and flat ones (B, L) or (L,). Only the first may have another grid than `grid`.
        grid: (h, w).
        num_codebooks: Q.

    Returns:
        int64 (B, h, w), or (B, h, w, Q) where Q > 1, on the device of a tensor, else on the CPU.

    Raises:
        ConfigurationError: another shape, or no integers.
    """
    shape = grid if num_codebooks == 1 else (*grid, num_codebooks)
    wanted = (
        f"codes must be integers of shape (B, {', '.join(map(str, shape))}), {shape} or (B, {math.prod(shape)}), got"
    )
    try:
        given = _tensor_or_array(codes)
    except (TypeError, ValueError, RuntimeError):
        raise ConfigurationError(f"{wanted} a {type(codes).__name__} that is no array") from None
    if given.shape == (0,):  # what an empty list is to NumPy, whatever its type
        return torch.empty((0, *shape), dtype=torch.int64)
    kind = str(getattr(given.dtype, "name", given.dtype)).removeprefix("torch.")
    whole = "int" in kind
    batched = given.ndim == len(shape) + 1 and (num_codebooks == 1 or given.shape[-1] == num_codebooks)
    flat = given.ndim in (1, 2) and given.shape[-1] == math.prod(shape)
    if not whole or not (batched or flat or given.shape == shape):
        raise ConfigurationError(f"{wanted} {kind} of shape {tuple(given.shape)}")
    tensor = given.long() if isinstance(given, Tensor) else torch.from_numpy(np.array(given, dtype=np.int64))
    return tensor if batched else tensor.reshape(-1, *shape)


def _tensor_or_array(codes: Any) -> Any:
    if isinstance(codes, list | tuple) and codes and isinstance(codes[0], Tensor):
        return torch.stack(tuple(codes))
    return codes if isinstance(codes, Tensor) else np.asarray(codes)
