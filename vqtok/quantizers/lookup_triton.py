"""Nearest-code search in one CUDA kernel, by Triton: Tillet, Kung, Cox 2019, doi:10.1145/3315508.3329973.

A program takes a block of rows through all codes and keeps each row's least score and its code in registers, the way
FlashAttention (Dao et al. 2022, arXiv:2205.14135) keeps its running maximum: no score is ever written. Products are
float32 proper, not TF32. So far it ran only in Triton's interpreter, not on a GPU, and tile sizes are chosen by
reckoning: it is used where the environment says VQTOK_TRITON=1, after `agrees` compared it with the plain search.
"""

from __future__ import annotations

import logging
import os
from functools import cache

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # it comes with torch for CUDA on Linux, and with nothing else
    triton = None

__all__ = ["least_scores", "suits"]

logger = logging.getLogger(__name__)

# Fewer rows make too few programs to fill a GPU, and too few scores for their writing to matter.
FEWEST_ROWS = 4096

# Tiles by the Hopper's register file: 64 x 64 sums and their operands on 128 threads stay under 128 registers each.
ROWS_PER_PROGRAM = 64
CODES_PER_STEP = 64
DIMENSIONS_PER_STEP = 32
LEAST_DIMENSIONS = 16  # of an operand of tl.dot
WARPS = 4
STAGES = 3

if triton is not None:

    @triton.jit
    def least_scores_kernel(
        rows,
        scaled,
        offsets,
        codes,
        num_rows,
        num_codes,
        dim,
        row_stride,
        code_stride,
        ROWS: tl.constexpr,
        CODES: tl.constexpr,
        DIM: tl.constexpr,
        ONE_STEP: tl.constexpr,
    ):
        row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
        along = tl.arange(0, DIM)
        row_starts = rows + row[:, None] * row_stride
        row_is_there = row[:, None] < num_rows
        held = tl.load(row_starts + along[None, :], mask=row_is_there & (along[None, :] < dim), other=0.0)
        least = tl.full((ROWS,), float("inf"), tl.float32)
        nearest = tl.zeros((ROWS,), tl.int32)
        for first in range(0, num_codes, CODES):
            code = first + tl.arange(0, CODES)
            code_is_there = code < num_codes
            code_starts = scaled + code[None, :].to(tl.int64) * code_stride
            scores = tl.zeros((ROWS, CODES), tl.float32)
            if ONE_STEP:  # the rows stay in registers
                mask = code_is_there[None, :] & (along[:, None] < dim)
                part = tl.load(code_starts + along[:, None], mask=mask, other=0.0)
                scores = tl.dot(held.to(tl.float32), part, scores, input_precision="ieee")
            else:
                for begin in range(0, dim, DIM):
                    at = begin + along
                    left = tl.load(row_starts + at[None, :], mask=row_is_there & (at[None, :] < dim), other=0.0)
                    mask = code_is_there[None, :] & (at[:, None] < dim)
                    part = tl.load(code_starts + at[:, None], mask=mask, other=0.0)
                    scores = tl.dot(left.to(tl.float32), part, scores, input_precision="ieee")
            scores += tl.load(offsets + code, mask=code_is_there, other=float("inf"))[None, :]
            scores = tl.where(scores == scores, scores, float("inf"))  # a row that is not numbers keeps code 0
            best, place = tl.min(scores, axis=1, return_indices=True, return_indices_tie_break_left=True)
            closer = best < least  # strictly: an earlier code keeps a tie
            nearest = tl.where(closer, first + place, nearest)
            least = tl.where(closer, best, least)
        tl.store(codes + row, nearest.to(tl.int64), mask=row < num_rows)


def least_scores(rows: Tensor, scaled: Tensor, offsets: Tensor) -> Tensor:
    """argmin_k offsets_k + rows.scaled_k, ties to the lowest index.

    Args:
        rows: (N, D) of any float type, N at least 1; made float32 in registers.
        scaled: float32 (K, D).
        offsets: float32 (K,).

    Returns:
        int64 (N,), in [0, K).
    """
    rows, scaled = rows.contiguous(), scaled.contiguous()
    count, dim = rows.shape
    step = min(DIMENSIONS_PER_STEP, max(LEAST_DIMENSIONS, triton.next_power_of_2(dim)))
    codes = torch.empty(count, dtype=torch.int64, device=rows.device)
    least_scores_kernel[(triton.cdiv(count, ROWS_PER_PROGRAM),)](
        rows,
        scaled,
        offsets,
        codes,
        count,
        len(offsets),
        dim,
        rows.stride(0),
        scaled.stride(0),
        ROWS=ROWS_PER_PROGRAM,
        CODES=CODES_PER_STEP,
        DIM=step,
        ONE_STEP=dim <= step,
        num_warps=WARPS,
        num_stages=STAGES,
    )
    return codes


def suits(rows: Tensor) -> bool:
    """Whether the kernel is asked for, runs here and is worth it for rows (N, D)."""
    return (
        asked_for()
        and triton is not None
        and rows.device.type == "cuda"
        and rows.shape[0] >= FEWEST_ROWS
        and rows.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and agrees(rows.device)
    )


@cache
def asked_for() -> bool:
    """Whether the environment switches the kernel on."""
    return os.environ.get("VQTOK_TRITON") == "1"


@cache
def agrees(device: torch.device) -> bool:
    """Whether the kernel compiles on a device and finds what the plain search finds; tried once in a process.

    Triton needs a compiler of C at run time and a GPU that it knows. Whole numbers leave nothing to rounding.
    """
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(-4, 5, (300, 40), generator=generator).float().to(device)
    scaled = torch.randint(-4, 5, (200, 40), generator=generator).float().to(device)
    offsets = scaled.square().sum(dim=1)
    try:
        with torch.cuda.device(device):
            found = least_scores(rows, scaled, offsets)
        same = torch.equal(found, torch.addmm(offsets, rows, scaled.t()).argmin(dim=1))
        reason = "it gives other codes"
    except Exception as error:  # whatever Triton or its compiler raise: the plain search is always there
        same, reason = False, repr(error)
    if not same:
        logger.warning("the Triton kernel of the lookup is not used on %s: %s", device, reason)
    return same
