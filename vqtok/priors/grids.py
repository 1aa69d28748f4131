"""Images as code grids in memory: the examples that a prior learns from and is tested on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vqtok.errors import DataError
from vqtok.priors.binding import PriorBinding

__all__ = ["CodeGrids", "unigram_bits_per_code"]


@dataclass(frozen=True, kw_only=True)
class CodeGrids:
    """Images as codes.

    Args:
        codes: integers (N, h, w), or (N, h, w, Q) where Q > 1; may be a view of a file.
        labels: int64 (N,), or None for images without classes.
    """

    codes: npt.NDArray[Any]
    labels: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.codes)

    def select(self, rows: npt.NDArray[np.int64]) -> CodeGrids:
        """Some of the images."""
        return CodeGrids(codes=self.codes[rows], labels=None if self.labels is None else self.labels[rows])

    def codebooks(self) -> list[npt.NDArray[Any]]:
        """The codes of each codebook: Q arrays (N * h * w,)."""
        return list(self.codes.reshape(-1, self.codes.shape[3] if self.codes.ndim == 4 else 1).T)

    def check(self, binding: PriorBinding, name: str) -> None:
        """Refuse what the prior to be trained could not read.

        Raises:
            DataError: no images, grids of another shape, codes outside [0, K), or labels that do not fit.
        """
        if self.codes.shape != binding.code_shape(len(self.codes)) or not len(self):
            wanted = ", ".join(map(str, binding.code_shape(0)[1:]))
            raise DataError(f"{name} must be codes of shape (N, {wanted}) with N at least 1, got {self.codes.shape}")
        low, high = int(self.codes.min()), int(self.codes.max())
        if low < 0 or high >= binding.codebook_size:
            raise DataError(f"{name} must be codes in [0, {binding.codebook_size}), got {low} to {high}")
        if not binding.num_classes:
            return
        if self.labels is None or len(self.labels) != len(self):
            raise DataError(f"{name} must have a label for each of the {len(self)} images")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= binding.num_classes:
            raise DataError(f"{name} must have labels in [0, {binding.num_classes}), got {low} to {high}")

    def batch(self, rows: Any, binding: PriorBinding) -> tuple[Tensor, Tensor]:
        """Codes int64 (B, L) and classes (B,) of some rows, the null class where the prior has none."""
        codes = torch.from_numpy(self.codes[rows].astype(np.int64)).flatten(1)
        if self.labels is None or not binding.num_classes:
            return codes, binding.classes(None, len(codes))
        return codes, torch.from_numpy(self.labels[rows].astype(np.int64))


def unigram_bits_per_code(train: CodeGrids, test: CodeGrids, codebook_size: int) -> float:
    """Bits per held-out code of the best guess that looks at no other code: how often each was seen in training.

    What a prior saves below this is what it knows of the order of codes. Each codebook is counted by itself, for a
    prior knows which one comes next. Counts start at one, so that a code never seen in training has a probability.
    """
    bits = []
    for known, held_out in zip(train.codebooks(), test.codebooks(), strict=True):
        seen = np.bincount(known, minlength=codebook_size) + 1
        asked = np.bincount(held_out, minlength=codebook_size)
        bits.append(-(asked * np.log2(seen / seen.sum())).sum() / asked.sum())
    return float(np.mean(bits))
