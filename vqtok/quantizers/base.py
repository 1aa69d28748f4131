"""What every quantizer is: latents in, the vectors of a finite codebook out, and the indices of those vectors.

Shapes, here and in every file of this package: `B` images, `D` code dimension, `h w` latent grid, `K` codes per
codebook, `Q` codebooks per position, `N = B*h*w` rows when the grid is flattened.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from vqtok.options import Options
from vqtok.quantizers.distributed import all_reduce_sum

__all__ = [
    "BatchPart",
    "Quantizer",
    "QuantizerOptions",
    "QuantizerOutput",
    "entropy",
    "from_rows",
    "mean_squared_error",
    "perplexity",
    "to_rows",
]


@dataclass(frozen=True, kw_only=True)
class QuantizerOutput:
    """What a quantizer makes of latents.

    Attributes:
        quantized: (B, D, h, w), float32; carries the gradient back to the latents.
        codes: int64 (B, h, w), or (B, h, w, Q) where Q > 1; -1 where a codebook was left out of a training batch.
        loss: scalar, the weighted sum of the quantizer's own loss terms.
        metrics: every term of `loss` before its weight, and what else is worth a curve; detached scalars.
    """

    quantized: Tensor
    codes: Tensor
    loss: Tensor
    metrics: dict[str, Tensor]


@dataclass(frozen=True)
class BatchPart:
    """Which part of a training batch a forward pass computes, of parts of equal size.

    Attributes:
        index: counted from 0; a scalar on the device, so that torch.compile makes one graph of all parts but two.
        number: how many there are.
        first, last: whether a batch begins or ends with it.
        stage, stages: which of so many stages sees it, where they share a codebook.
    """

    index: Tensor | int = 0
    number: int = 1
    first: bool = True
    last: bool = True
    stage: int = 0
    stages: int = 1


class QuantizerOptions(Options):
    """What the options of every method have: the name of the method, as `type`."""

    section = "quantizer"

    type: str


class Quantizer(nn.Module, ABC):
    """The contract. `decode(encode(z))` equals the `quantized` of a forward pass over `z` from the same state exactly.

    Arithmetic is float32 whatever autocast says, and so are its parameters and buffers whatever the model is cast to.

    A method that learns its codebook while it is used (a moving average, a restart) does so at the end of a forward
    pass in training mode, after the codes were looked up. Where a batch is computed in parts, a loop says before each
    forward pass which part it is (`set_part`), and the codebook learns from the whole batch at the end of the last.

    Args:
        options: those that `Options` describes, by name.

    Raises:
        ConfigurationError: options that make no sense.
    """

    Options: ClassVar[type[QuantizerOptions]]
    """What can be chosen."""

    options: QuantizerOptions

    codebook_size: int
    num_codebooks: int = 1
    code_dim: int

    code_levels: Sequence[int] = ()
    """How many values each dimension of a code has where codes are made of dimensions, such as bits; their product is
    K, and the first one changes fastest."""

    paper: ClassVar[str] = "van den Oord et al. 2017, arXiv:1711.00937"
    """Where the method comes from."""

    batch_part: BatchPart = BatchPart()
    """Which part of a training batch the next forward pass computes."""

    nested: bool = False
    """Whether this is a part of another quantizer, which then says when a batch ends."""

    training_state: tuple[str, ...] = ()
    """Names of tensors that training keeps and that decide no code, such as moving averages."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = self.Options(**options)

    @abstractmethod
    def forward(self, latents: Tensor) -> QuantizerOutput:
        """Quantize latents (B, D, h, w) and say what that costs."""

    @abstractmethod
    def encode(self, latents: Tensor) -> Tensor:
        """Codes of latents (B, D, h, w): int64 (B, h, w), or (B, h, w, Q) where Q > 1."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Vectors of codes: float32 (B, D, h, w). Where Q > 1, a code of -1 adds nothing."""

    @abstractmethod
    def reset_parameters(self) -> None:
        """Fill every parameter and buffer with its starting value."""

    def members(self) -> Sequence[Quantizer]:
        """The quantizers that this one is made of."""
        return ()

    def initialize(self, latents: Tensor) -> None:
        """Put codes that start on data on latents (B, D, h, w) of the whole first training batch, if they have not yet.

        Where a batch is computed in parts, the first forward pass sees only one of them; otherwise none needs this.
        """
        return

    def set_part(self, index: int, number: int) -> None:
        """Say that the next forward pass computes part `index` of a training batch in `number` parts of equal size."""
        on_device = torch.full((), index, device=next(self.buffers(), torch.empty(0)).device)
        part = BatchPart(on_device, number, first=index == 0, last=index + 1 == number)
        for each in self.modules():
            if isinstance(each, Quantizer):
                each.batch_part = part

    def watch(self, optimizer: torch.optim.Optimizer) -> None:
        """Have an optimizer forget what it remembers of codes that restart, before it takes its next step."""
        for member in self.members():
            member.watch(optimizer)

    def collected(self) -> list[Tensor]:
        """Statistics of the training batch so far, to be summed over all processes in place."""
        return [tensor for member in self.members() for tensor in member.collected()]

    def learn(self) -> None:
        """Learn from the statistics of the whole batch, and begin the next one."""
        for member in self.members():
            member.learn()

    @torch.no_grad()
    def end_part(self) -> None:
        """At the end of a training forward pass: after the last part of a batch, learn from it."""
        if not self.nested and self.batch_part.last:
            all_reduce_sum(*self.collected())
            self.learn()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move to another device with the rest of a model, but be float32 whatever that is cast to."""

        def moved(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            floats_of_another_type = result.is_floating_point() and result.dtype != torch.float32
            return tensor.to(result.device, torch.float32) if floats_of_another_type else result

        super()._apply(moved, recurse)
        return self

    @torch.no_grad()
    def distortion(self, latents: Tensor) -> Tensor:
        """Squared distance of each latent to its code, where the method compares the two: float32 (B, h, w)."""
        return (latents.float() - self.decode(self.encode(latents))).square().sum(dim=1)


def to_rows(latents: Tensor) -> Tensor:
    """(B, D, h, w) of any float type -> float32 (N, D)."""
    return latents.float().permute(0, 2, 3, 1).reshape(-1, latents.shape[1])


def from_rows(rows: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """(N, D) -> (B, D, h, w), where `grid` is (B, h, w)."""
    return rows.view(*grid, rows.shape[1]).permute(0, 3, 1, 2)


def mean_squared_error(first: Tensor, second: Tensor) -> Tensor:
    """Mean over all elements of (first - second)^2; 0 of no elements, such as an empty last batch."""
    error: Tensor = mse_loss(first, second) if first.numel() else (first - second).sum()
    return error


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy in nats of one distribution, a scalar; its gradient is finite where a probability is 0."""
    tiny = torch.finfo(probabilities.dtype).tiny
    return -(probabilities * probabilities.clamp(min=tiny).log()).sum()


def perplexity(counts: Tensor) -> Tensor:
    """exp of the entropy of how often each code was used; counts (K,), K when all are used alike, 1 when one is."""
    return entropy(counts / counts.sum().clamp(min=1)).exp()
