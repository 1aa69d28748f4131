"""Nearest-code search: for each row the index of the closest vector of a codebook; and the vectors of codes.

    argmin_k ||z - e_k||^2 = argmin_k ||e_k||^2 - 2 z.e_k, since ||z||^2 is the same for every k,
                           = argmin_k [z, 1].[-2 e_k, ||e_k||^2], one matrix product and no pass to add the norms.

All of it is exact but for the rounding of the scores: float32 whatever autocast or `torch.set_float32_matmul_precision`
say, ties to the lowest index. The scores lose digits where codes lie much further from 0 than from each other. They are
made for a chunk of rows at a time. On CPU the argmin is taken in two steps, because `argmin` reads one
number at a time and `amin` sixteen: the least score of every block of consecutive codes, and the place within the
block that has it. `lookup_faiss` and `lookup_triton` are faster ways where they apply; scripts/bench_quantizers.py
times them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding

from vqtok.errors import ConfigurationError
from vqtok.quantizers import lookup_faiss, lookup_triton

__all__ = ["gather_codes", "most_similar_codes", "nearest_codes"]

# Scores held at once on CPU, for each thread: 4 MiB. A quarter of it fits a core's own cache and makes the product
# and the minimum faster (45 + 21 ms rather than 48 + 28 at 16384x8/16384), and loses more to four times as many calls.
SCORES_PER_THREAD = 2**20

# On an accelerator: this share of the memory that is free, up to 1 GiB of float32.
SHARE_OF_FREE_MEMORY = 0.25
SCORES_ON_ACCELERATOR = 2**28


def nearest_codes(rows: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest code by Euclidean distance; ties go to the lowest index. No gradient is recorded.

    Args:
        rows: (N, D) of any float type, N may be 0; compared as float32.
        codebook: (K, D) of any float type, K at least 1 unless N is 0.

    Returns:
        int64 (N,), in [0, K) even for rows that are not numbers. The N x K scores are never held whole.
    """
    codes: Tensor = search(rows.detach(), codebook.detach(), True)
    return codes


def most_similar_codes(rows: Tensor, codebook: Tensor) -> Tensor:
    """argmax_k z.e_k, the code of largest inner product; otherwise as `nearest_codes`."""
    codes: Tensor = search(rows.detach(), codebook.detach(), False)
    return codes


def gather_codes(codebook: Tensor, codes: Tensor) -> Tensor:
    """The vectors of codes, (K, D) and int64 (N,) -> (N, D), whose gradient is added up by index, never by a product.

    The gradient of `index_select` is `index_add_`: 0.26, 1.6 and 0.66 ms on two cores at 8192x64/512, 8192x256/8192
    and 16384x8/16384, where that of `embedding` took 0.78, 2.1 and 1.4 and sorts with `embedding_bag` or
    `segment_reduce` more. On CPU it gives the same bits every time. On CUDA it would add in whatever order the threads
    come; there `embedding`, which sorts the codes first, does not.
    """
    return embedding(codes, codebook) if codebook.device.type == "cuda" else codebook.index_select(0, codes)


@torch.library.custom_op(
    "vqtok::search", mutates_args=(), schema="(Tensor rows, Tensor codebook, bool euclidean) -> Tensor"
)
def search(rows: Tensor, codebook: Tensor, euclidean: bool) -> Tensor:
    """The search behind both names; one operation to torch.compile, which would unroll the chunks."""
    if rows.shape[0] == 0:
        return torch.empty(0, dtype=torch.int64, device=rows.device)
    if codebook.shape[0] == 0:
        raise ConfigurationError("codebook must hold at least 1 vector to look codes up in, got none")
    codebook = codebook.float()
    if rows.device.type == "cpu" and euclidean and lookup_faiss.suits(rows, codebook):
        return lookup_faiss.nearest_codes(rows.float(), codebook)
    with torch.autocast(rows.device.type, enabled=False), float32_products(rows.device):
        scaled = codebook * (-2 if euclidean else -1)
        offsets = codebook.square().sum(dim=1) if euclidean else codebook.new_zeros(codebook.shape[0])
        if rows.device.type == "cpu":
            return least_by_blocks(rows, scaled, offsets)
        if lookup_triton.suits(rows):
            return lookup_triton.least_scores(rows, scaled, offsets)
        return least_by_rows(rows, scaled, offsets)


@search.register_fake
def _(rows: Tensor, codebook: Tensor, euclidean: bool) -> Tensor:
    return rows.new_empty(rows.shape[0], dtype=torch.int64)


def least_by_blocks(rows: Tensor, scaled: Tensor, offsets: Tensor) -> Tensor:
    """argmin_k offsets_k + rows.scaled_k for the CPU; (N, D), (K, D), (K,) -> int64 (N,).

    Block j holds codes j * size to (j + 1) * size - 1, and scores lie as (size, blocks), so that `amin` goes along
    whole lines of memory. The last block is filled up with copies of the last code, which lose every tie to it.
    """
    codebook_size, dim = scaled.shape
    size = 1 << max(0, (codebook_size.bit_length() - 2) // 2)  # about half the square root of K: 16 of 512, 64 of 16384
    blocks = -(-codebook_size // size)
    order = torch.arange(blocks * size).view(blocks, size).t().flatten().clamp(max=codebook_size - 1)
    table = torch.cat([scaled, offsets[:, None]], dim=1)[order]

    chunk = min(rows.shape[0], max(1, SCORES_PER_THREAD * torch.get_num_threads() // len(order)))
    extended = table.new_ones(chunk, dim + 1)
    scores, least = table.new_empty(chunk, len(order)), table.new_empty(chunk, blocks)
    codes = torch.empty(rows.shape[0], dtype=torch.int64)
    for part, out in zip(rows.split(chunk), codes.split(chunk), strict=True):
        count = part.shape[0]
        extended[:count, :dim] = part
        torch.mm(extended[:count], table.t(), out=scores[:count])
        by_block = scores[:count].view(count, size, blocks)
        torch.amin(by_block, dim=1, out=least[:count])
        block = least[:count].argmin(dim=1)
        inside = by_block.gather(2, block[:, None, None].expand(-1, size, 1)).argmin(dim=1).squeeze(1)
        torch.add(inside, block, alpha=size, out=out)
    return codes.clamp_(max=codebook_size - 1)  # should a product round a copy downwards


def least_by_rows(rows: Tensor, scaled: Tensor, offsets: Tensor) -> Tensor:
    """The same for an accelerator, in as few steps as its memory allows."""
    chunk = max(1, scores_on(rows.device, rows.shape[0] * len(offsets)) // len(offsets))
    table = scaled.t()
    least = [torch.addmm(offsets, part.float(), table).argmin(dim=1) for part in rows.split(chunk)]
    return least[0] if len(least) == 1 else torch.cat(least)


@lru_cache(maxsize=64)
def scores_on(device: torch.device, wanted: int) -> int:
    """Scores to hold at once, of so many wanted. Asked once for each problem: a look at free memory stalls the loop."""
    if device.type != "cuda":
        return min(wanted, SCORES_ON_ACCELERATOR)
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(wanted, SCORES_ON_ACCELERATOR, int(free * SHARE_OF_FREE_MEMORY) // 4)


@contextmanager
def float32_products(device: torch.device) -> Iterator[None]:
    """Products in float32 proper, where torch was allowed to use TF32 or bfloat16 for the sake of speed."""
    library: Any = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    backend: Any = getattr(library, "matmul", None)
    if hasattr(backend, "fp32_precision"):
        before = backend.fp32_precision
        backend.fp32_precision = "ieee"
        try:
            yield
        finally:
            backend.fp32_precision = before
    else:  # torch before 2.9
        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)
