"""What quantizers say to each other across the processes of one training run: sums, means and rows of the whole batch.

Every function is a no-op in a single process, and every process must call the same ones in the same order.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = [
    "all_reduce_sum",
    "count_rows",
    "mean_over_processes",
    "pick_random_rows",
    "pick_rows",
    "random_numbers",
]


def several_processes() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def all_reduce_sum(*tensors: Tensor) -> None:
    """Sum each tensor over all processes, in place."""
    if several_processes():
        for tensor in tensors:
            dist.all_reduce(tensor)


def mean_over_processes(rows: Tensor, *, together: bool = True) -> Tensor:
    """The mean of the rows of all processes, with the gradient that data parallel training needs.

    Args:
        rows: (N, M), this process's part; the parts may differ in length and may be empty.
        together: False takes the mean of this process's rows alone, as outside of training, where the others may be
            doing something else.

    Returns:
        (M,): the mean over all rows of all processes; zeros where there are none. Towards this process's rows the
        gradient is that of the mean times the number of processes, because data parallel training divides by it.
    """
    total = rows.sum(dim=0)
    count = torch.full((), rows.shape[0], dtype=rows.dtype, device=rows.device)
    whole, processes = total.detach().clone(), 1
    if together and several_processes():
        all_reduce_sum(whole, count)
        processes = dist.get_world_size()
    count = count.clamp(min=1)
    return whole / count + (total - total.detach()) * (processes / count)


def count_rows(rows: Tensor) -> Tensor:
    """How many rows each process has: int64 (P,)."""
    if not several_processes():
        return torch.full((1,), rows.shape[0], device=rows.device)
    counts = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=rows.device)
    counts[dist.get_rank()] = rows.shape[0]
    dist.all_reduce(counts)
    return counts


def random_numbers(count: int, device: torch.device) -> Tensor:
    """Uniform in [0, 1), the same on every process: float64 (count,)."""
    numbers = torch.rand(count, device=device, dtype=torch.float64)
    if several_processes():
        dist.broadcast(numbers, 0)
    return numbers


def pick_rows(rows: Tensor, positions: Tensor) -> Tensor:
    """The rows at relative places of the batch of all processes, the same on every process.

    Args:
        rows: (N, D), this process's part of the batch; the parts may differ in length and may be empty.
        positions: (M,) in [0, 1), the same on every process, see `random_numbers`.

    Returns:
        (M, D): what one process that held the whole batch, parts in order of rank, would have picked; zeros where no
        process has any row.
    """
    if not several_processes():
        return rows[(positions * rows.shape[0]).long()] if len(rows) else rows.new_zeros(len(positions), rows.shape[1])
    counts = count_rows(rows)
    begin = counts[: dist.get_rank()].sum()
    index = (positions * counts.sum()).long() - begin
    picked = rows.new_zeros(len(positions), rows.shape[1])
    if rows.shape[0] > 0:
        mine = (index >= 0) & (index < rows.shape[0])
        picked = torch.where(mine[:, None], rows[index.clamp(0, rows.shape[0] - 1)], picked)
    dist.all_reduce(picked)
    return picked


def pick_random_rows(rows: Tensor, count: int) -> Tensor:
    """Random rows of the batch of all processes, the same on every process: (N, D) -> (count, D)."""
    return pick_rows(rows, random_numbers(count, rows.device))
