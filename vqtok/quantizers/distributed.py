"""What quantizers say to each other across the processes of one training run: sums, means, rows and random choices.

Every function is a no-op in a single process, and every process must call the same ones in the same order.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["SharedNoise", "all_reduce_sum", "count_rows", "mean_over_processes", "pick_rows", "rank_and_size"]


def rank_and_size() -> tuple[int, int]:
    """The number of this process and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def all_reduce_sum(*tensors: Tensor) -> None:
    """Sum each tensor over all processes, in place and in one collective; all of one type."""
    if rank_and_size()[1] == 1 or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


def mean_over_processes(*rows: Tensor, together: bool = True) -> Tensor:
    """The mean of the rows of all processes, with the gradient that data parallel training needs.

    Args:
        rows: (N, M), this process's part; the parts may differ in length and may be empty. Several of one length count
            as one that has them side by side.
        together: False takes the mean of this process's rows alone, as outside of training, where the others may be
            doing something else.

    Returns:
        (M,): the mean over all rows of all processes; zeros where there are none. Towards this process's rows the
        gradient is that of the mean times the number of processes, because data parallel training divides by it.
    """
    total = torch.cat([each.sum(dim=0) for each in rows])
    count = total.new_full((), len(rows[0]))
    whole, processes = total.detach().clone(), 1
    if together:
        all_reduce_sum(whole, count)
        processes = rank_and_size()[1]
    count = count.clamp(min=1)
    return whole / count + (total - total.detach()) * (processes / count)


def count_rows(rows: Tensor) -> Tensor:
    """How many rows each process has: int64 (P,)."""
    rank, size = rank_and_size()
    counts = torch.zeros(size, dtype=torch.int64, device=rows.device)
    counts[rank] = rows.shape[0]
    all_reduce_sum(counts)
    return counts


def pick_rows(rows: Tensor, positions: Tensor, counts: Tensor) -> Tensor:
    """Rows of the batch of all processes, the same on every process.

    Args:
        rows: (N, D), this process's part of the batch; the parts may differ in length and may be empty.
        positions: int64 (M,) in [0, sum of counts), the same on every process.
        counts: what `count_rows` gives.

    Returns:
        (M, D): what one process that held the whole batch, parts in order of rank, would have picked.
    """
    index = positions - counts[: rank_and_size()[0]].sum()
    picked = rows.new_zeros(len(positions), rows.shape[1])
    if rows.shape[0] > 0:
        mine = (index >= 0) & (index < rows.shape[0])
        picked = torch.where(mine[:, None], rows[index.clamp(0, rows.shape[0] - 1)], picked)
    all_reduce_sum(picked)
    return picked


class SharedNoise(nn.Module):
    """Random numbers on which all processes agree without a word, and with which a resumed run goes on.

    A number is a hash of the seed, of how many training batches there were, and of its own index. So nothing waits for
    the device, nothing is sent, and torch.compile sees no number of the host that changes from batch to batch.
    """

    noise_seed: Tensor
    batches_seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("noise_seed", torch.empty((), dtype=torch.int64))
        self.register_buffer("batches_seen", torch.empty((), dtype=torch.int64))

    def reset_parameters(self) -> None:
        """The seed comes from torch's generator, and data parallel training sends the first process's to all."""
        with torch.no_grad():
            self.noise_seed.random_()
        nn.init.zeros_(self.batches_seen)

    def forward(self, count: int) -> Tensor:
        """Whole numbers that look random, below 2^31: int64 (count,). The same until `batches_seen` moves on."""
        index = torch.arange(count, device=self.noise_seed.device)
        return mix(mix(self.noise_seed + self.batches_seen) + index) & (2**31 - 1)


def mix(numbers: Tensor) -> Tensor:
    """A hash of 64-bit numbers: splitmix64, Steele et al. 2014, doi:10.1145/2660193.2660195."""
    numbers = numbers + -0x61C8864680B583EB
    numbers = (numbers ^ logical_shift(numbers, 30)) * -0x40A7B892E31B1A47
    numbers = (numbers ^ logical_shift(numbers, 27)) * -0x6B2FB644ECCEEE15
    return numbers ^ logical_shift(numbers, 31)


def logical_shift(numbers: Tensor, bits: int) -> Tensor:
    """Shift 64-bit numbers right and fill with zeros, which int64 alone does not do."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)
