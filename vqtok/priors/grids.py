"""Images as code grids: the examples that a prior learns from and is tested on, read a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vqtok.errors import DataError
from vqtok.priors.binding import PriorBinding

__all__ = ["CodeGrids", "count_codes", "prior_batch", "unigram_bits_per_code"]


class CodeGrids(Protocol):
    """Images as codes, and their classes where they have them; `vqtok.codes.CodesDataset` is one."""

    labels: npt.NDArray[np.int64] | None
    """The class of each image, (N,)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, h, w), or (N, h, w, Q) where Q > 1."""

    def __len__(self) -> int: ...

    def __getitems__(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """`codes`, int64 (B, h, w[, Q]), and where there are labels `labels`, int64 (B,)."""

    def select(self, rows: npt.NDArray[np.int64]) -> CodeGrids:
        """Some of the images, in the order of `rows`."""

    def blocks(self) -> Iterator[npt.NDArray[Any]]:
        """All images in order, some at a time: integers (n, h, w[, Q])."""


def prior_batch(grids: CodeGrids, rows: Sequence[int], binding: PriorBinding) -> tuple[Tensor, Tensor]:
    """Codes int64 (B, L) and classes (B,) of some images, the null class where the prior has none."""
    batch = grids.__getitems__(rows)
    classes = batch["labels"] if binding.num_classes else binding.classes(None, len(batch["codes"]))
    return batch["codes"].flatten(1), classes


def count_codes(grids: CodeGrids, binding: PriorBinding, name: str) -> npt.NDArray[np.int64]:
    """How often each code of each codebook occurs, (Q, K); refuses what the prior to be trained could not read.

    All images are read once, some at a time.

    Raises:
        DataError: no images, grids of another shape, codes outside [0, K), or labels that do not fit.
    """
    if grids.shape != binding.code_shape(len(grids)) or not len(grids):
        wanted = ", ".join(map(str, binding.code_shape(0)[1:]))
        raise DataError(f"{name} must be codes of shape (N, {wanted}) with N at least 1, got {grids.shape}")
    _check_labels(grids, binding, name)
    counts = np.zeros((binding.num_codebooks, binding.codebook_size), dtype=np.int64)
    for block in grids.blocks():
        low, high = int(block.min()), int(block.max())
        if low < 0 or high >= binding.codebook_size:
            raise DataError(f"{name} must be codes in [0, {binding.codebook_size}), got {low} to {high}")
        for count, codes in zip(counts, block.reshape(-1, binding.num_codebooks).T, strict=True):
            count += np.bincount(codes, minlength=binding.codebook_size)
    return counts


def _check_labels(grids: CodeGrids, binding: PriorBinding, name: str) -> None:
    if not binding.num_classes:
        return
    if grids.labels is None or len(grids.labels) != len(grids):
        raise DataError(f"{name} must have a label for each of the {len(grids)} images")
    low, high = int(grids.labels.min()), int(grids.labels.max())
    if low < 0 or high >= binding.num_classes:
        raise DataError(f"{name} must have labels in [0, {binding.num_classes}), got {low} to {high}")


def unigram_bits_per_code(train: npt.NDArray[np.int64], test: npt.NDArray[np.int64]) -> float:
    """Bits per held-out code of the best guess that looks at no other code: how often each was seen in training.

    What a prior saves below this is what it knows of the order of codes. Each codebook is counted by itself, for a
    prior knows which one comes next. Counts start at one, so that a code never seen in training has a probability.

    Args:
        train, test: what `count_codes` gives of the training images and of the held-out ones.
    """
    bits = []
    for known, asked in zip(train, test, strict=True):
        seen = known + 1
        bits.append(-(asked * np.log2(seen / seen.sum())).sum() / asked.sum())
    return float(np.mean(bits))
