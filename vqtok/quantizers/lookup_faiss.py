"""Nearest-code search by faiss, an optional package (`pip install vqtok[faiss]`): Douze et al. 2024, arXiv:2401.08281.

Its exact flat search keeps the least distance of a few dimensions in registers, where torch writes every score to
memory first. It is used where it is installed and measured faster: few dimensions, many codes, on CPU. Scores are
float32 and ties go to the lowest index there too; a code can differ from the one of torch only where two distances
are equal up to rounding.
"""

from __future__ import annotations

import sys
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

__all__ = ["nearest_codes", "suits"]

# Measured with faiss 1.15 on two cores against the search by torch: from 2.9 times as fast at 16384x8/16384 to 1.2 at
# 8192x32/16384, slower from 48 dimensions on. Under some 2**17 numbers in the rows faiss goes code by code instead,
# and is five times slower than torch.
MOST_DIMENSIONS = 32
FEWEST_CODES = 256
FEWEST_NUMBERS = 2**17


def suits(rows: Tensor, codebook: Tensor) -> bool:
    """Whether faiss is installed and faster for rows (N, D) and codebook (K, D)."""
    return (
        rows.shape[1] <= MOST_DIMENSIONS
        and codebook.shape[0] >= FEWEST_CODES
        and rows.numel() >= FEWEST_NUMBERS
        and faiss() is not None
    )


@cache
def faiss() -> Any | None:
    """The package, imported when it is first needed; None where it is not installed or not safe beside torch."""
    if sys.platform != "linux":  # elsewhere two OpenMP libraries in one process end it
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the generated bindings
        try:
            import faiss as package
        except ImportError:
            return None
    return package


def nearest_codes(rows: Tensor, codebook: Tensor) -> Tensor:
    """As `lookup.nearest_codes`; rows and codebook float32 on CPU. Threads are as many as torch uses."""
    package = faiss()
    assert package is not None
    package.omp_set_num_threads(torch.get_num_threads())
    index = package.IndexFlatL2(codebook.shape[1])
    index.add(codebook.contiguous().numpy())
    codes = torch.from_numpy(index.search(rows.contiguous().numpy(), 1)[1]).squeeze(1)
    return codes.clamp_(min=0)  # -1, none, for a row that is not numbers
