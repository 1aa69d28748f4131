"""How far apart the vectors of a codebook are: codes that lie on top of each other are one code with several names.

The vectors are what the decoder gets for a code, so that methods without a learned codebook have distances as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vqtok.quantizers import Quantizer

__all__ = ["CodeDistances", "code_distances", "code_vectors", "of_codebook"]

Array = npt.NDArray[Any]

CODES_AT_ONCE = 16_384  # decoded in one call
SCORES_AT_ONCE = 2**24  # float32, 64 MiB
ALL_NEAREST = 16_384  # codes up to which the nearest other one of each is looked for, 17 GMAC at 64 dimensions
SAMPLE_NEAREST = 4096
SAMPLE_PAIRS = 1024  # codes on the map of all pairs, which is as many pixels as a drawing shows


@dataclass(frozen=True, kw_only=True)
class CodeDistances:
    """Euclidean distances between the vectors of one codebook.

    Attributes:
        codes: int64 (n,), the codes whose nearest other code was looked for: all, or a sample of a large codebook.
        nearest: float64 (n,), the distance of each to the nearest among all the others whose vectors were given.
        mapped: int64 (m,), the codes of the map, those with close vectors next to each other.
        pairs: float64 (m, m), the distances between them.
    """

    codes: Array
    nearest: Array
    mapped: Array
    pairs: Array


@torch.no_grad()
def code_distances(vectors: Tensor, *, seed: int = 0) -> CodeDistances:
    """Distances between vectors (K, D), K at least 2; of more than 16,384 and 1,024 codes those of a sample.

    Memory: K times D numbers and a few chunks of 64 MiB.
    """
    size = len(vectors)
    order = np.random.default_rng(seed).permutation(size)
    codes = np.arange(size) if size <= ALL_NEAREST else np.sort(order[:SAMPLE_NEAREST])
    mapped = np.arange(size) if size <= SAMPLE_PAIRS else np.sort(order[:SAMPLE_PAIRS])
    chosen = vectors[torch.from_numpy(mapped).to(vectors.device)].double().cpu().numpy()
    sorted_by_similarity = similarity_order(chosen)
    rows = torch.from_numpy(chosen[sorted_by_similarity])
    pairs = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").numpy()
    return CodeDistances(
        codes=codes,
        nearest=nearest_others(vectors, torch.from_numpy(codes).to(vectors.device)).double().cpu().numpy(),
        mapped=mapped[sorted_by_similarity],
        pairs=pairs,
    )


@torch.no_grad()
def code_vectors(
    quantizer: Quantizer, codebook: int = 0, *, codes: Tensor | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """What one codebook gives the decoder for codes (n,), by default for all K, nothing coming from the others.

    Returns:
        float32 (n, D).
    """
    chosen = torch.arange(quantizer.codebook_size) if codes is None else codes
    parts = []
    for codes in chosen.to(device).split(CODES_AT_ONCE):
        grid = of_codebook(codes.view(1, -1, 1), codebook, quantizer.num_codebooks)
        parts.append(quantizer.decode(grid)[0, :, :, 0].T.float())
    return torch.cat(parts)


def of_codebook(codes: Tensor, codebook: int, num_codebooks: int) -> Tensor:
    """Codes (B, h, w) of one codebook as a quantizer decodes them: where Q > 1 (B, h, w, Q), the others none."""
    if num_codebooks == 1:
        return codes
    alone = codes.new_full((*codes.shape, num_codebooks), -1)
    alone[..., codebook] = codes
    return alone


def nearest_others(vectors: Tensor, codes: Tensor) -> Tensor:
    """Distance of each of the codes (n,) to the nearest other vector of (K, D): (n,).

    The nearest is found by a matrix product, and its distance taken from the difference, which loses no digits where
    two vectors are almost one.
    """
    centred = vectors - vectors.mean(dim=0)
    norms = centred.square().sum(dim=1)
    found = []
    for chunk in codes.split(max(1, SCORES_AT_ONCE // len(vectors))):
        scores = torch.addmm(norms, centred[chunk], centred.T, alpha=-2)
        scores[torch.arange(len(chunk), device=chunk.device), chunk] = torch.inf
        found.append((centred[chunk] - centred[scores.argmin(dim=1)]).norm(dim=1))
    return torch.cat(found)


def similarity_order(vectors: Array) -> npt.NDArray[np.int64]:
    """An order of vectors (n, D) in which close ones are mostly neighbours: cut in halves along the widest direction.

    Each half is cut again in the same way, down to pairs.
    """
    if len(vectors) <= 2:
        return np.arange(len(vectors))
    centred = vectors - vectors.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    order = np.argsort(centred @ directions[:, -1], kind="stable")
    low, high = order[: len(order) // 2], order[len(order) // 2 :]
    return np.concatenate([half[similarity_order(vectors[half])] for half in (low, high)])
