"""How much of its codebook a tokenizer uses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vqtok.errors import DataError

__all__ = ["CodeUse", "count_codes", "top_share"]


@dataclass(frozen=True, kw_only=True)
class CodeUse:
    """What the counts of a set of codes say.

    Attributes:
        perplexity: exp of the entropy of the shares, in nats: K where all codes are used alike, 1 where one is. With
            several codebooks the mean over them.
        codes_in_use: codes that occur at least once, over all codebooks.
        codebook_size: K, codes per codebook.
    """

    perplexity: float
    codes_in_use: int
    codebook_size: int

    @classmethod
    def from_counts(cls, counts: npt.NDArray[np.int64]) -> CodeUse:
        """Sum up counts (Q, K): how often each code of each codebook occurred."""
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
        return cls(
            perplexity=float(np.exp(-(shares * logs).sum(axis=1)).mean()),
            codes_in_use=int((counts > 0).sum()),
            codebook_size=counts.shape[1],
        )


def count_codes(codes: npt.NDArray[Any], *, codebook_size: int, num_codebooks: int = 1) -> npt.NDArray[np.int64]:
    """How often each code occurs.

    Args:
        codes: integers (N, h, w), or (N, h, w, Q) where Q > 1, each in [0, K).
        codebook_size: K.
        num_codebooks: Q.

    Returns:
        int64 (Q, K).

    Raises:
        DataError: a code outside [0, K).
    """
    columns = codes.reshape(-1, num_codebooks)
    if columns.size and not 0 <= int(columns.min()) <= int(columns.max()) < codebook_size:
        raise DataError(f"codes must lie in [0, {codebook_size}), got {int(columns.min())} to {int(columns.max())}")
    return np.stack([np.bincount(column, minlength=codebook_size) for column in columns.T])


def top_share(counts: npt.NDArray[np.int64], part: float = 0.01) -> float:
    """The share of all positions that a part of the codes takes, the most used ones: the mean over codebooks.

    Args:
        counts: (Q, K).
        part: of K, rounded up to a code; 0.01 is what even use of K = 100 codes and more would give.
    """
    most = -np.sort(-counts, axis=1)[:, : math.ceil(part * counts.shape[1])]
    return float((most.sum(axis=1) / np.maximum(counts.sum(axis=1), 1)).mean())
