"""Counts of the codes of a dataset, and the codes among them that are looked at one by one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vqtok.errors import DataError
from vqtok.quantizers import CodeCounting, CodeUse
from vqtok.quantizers.counting import COUNTABLE

__all__ = ["CodeSample", "code_use", "count_codes", "top_share"]

Array = npt.NDArray[Any]

SAMPLE = 1024  # codes that are looked at one by one where there are too many of them


def count_codes(codes: Array, *, codebook_size: int, num_codebooks: int = 1) -> list[npt.NDArray[np.int64]]:
    """How often each code of each codebook occurs in an array of codes.

    Args:
        codes: integers (N, h, w), or (N, h, w, Q) where Q > 1, each in [0, K).
        codebook_size: K.
        num_codebooks: Q.

    Returns:
        int64 (K,) for each codebook; beyond 2^18 codes only for those that occur, in ascending order.

    Raises:
        DataError: a code outside [0, K).
    """
    columns = codes.reshape(-1, num_codebooks)
    if columns.size and not 0 <= int(columns.min()) <= int(columns.max()) < codebook_size:
        raise DataError(f"codes must lie in [0, {codebook_size}), got {int(columns.min())} to {int(columns.max())}")
    if codebook_size > COUNTABLE:
        return [np.unique(column, return_counts=True)[1] for column in columns.T]
    return [np.bincount(column, minlength=codebook_size) for column in columns.T]


def code_use(codes: Array, *, codebook_size: int, num_codebooks: int = 1) -> CodeUse:
    """How many codes are in use in an array of codes, however large the codebook is; arguments as in `count_codes`."""
    counts = count_codes(codes, codebook_size=codebook_size, num_codebooks=num_codebooks)
    return CodeUse.from_counts(map(torch.from_numpy, counts), codebook_size)


def top_share(counts: npt.NDArray[np.int64], part: float = 0.01) -> float:
    """The share of all positions that a part of the codes takes, the most used ones: the mean over codebooks.

    Args:
        counts: (Q, K).
        part: of K, rounded up to a code; 0.01 is what even use of K = 100 codes and more would give.
    """
    most = -np.sort(-counts, axis=1)[:, : math.ceil(part * counts.shape[1])]
    return float((most.sum(axis=1) / np.maximum(counts.sum(axis=1), 1)).mean())


class CodeSample:
    """The codes of one codebook that are looked at one by one, and how often each occurs: `counts` (n,).

    All codes where each is counted, and else up to 1,024 of those that the first images have.

    Args:
        counting: of the tokenizer.
        first: codes of the first images, of any shape.
    """

    def __init__(self, counting: CodeCounting, first: Array) -> None:
        self.codes = np.arange(counting.codebook_size) if not counting.by_dimension else some_codes(first)
        if len(self.codes) < 2:  # a distance takes two
            self.codes = np.sort(np.append(self.codes, (self.codes[0] + 1) % counting.codebook_size))
        self.counts = np.zeros(len(self.codes), dtype=np.int64)

    def add(self, codes: Array) -> Array:
        """Count codes; returns them with -1 in place of those that are not looked at."""
        index = np.searchsorted(self.codes, codes).clip(max=len(self.codes) - 1)
        found = self.codes[index] == codes
        self.counts += np.bincount(index[found], minlength=len(self.codes))
        return np.where(found, codes, -1)


def some_codes(codes: Array) -> Array:
    """At most 1,024 of the codes that occur, picked evenly, in ascending order: int64 (n,)."""
    found = np.unique(codes)
    return np.sort(np.random.default_rng(0).permutation(found)[:SAMPLE])
