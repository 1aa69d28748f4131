"""Codes made of signs: D numbers fall to one of K = 2^D codes, whose bits say which of the numbers are positive.

    code = sum_d 2^d [z_d > 0]            (Yu et al. 2023, arXiv:2310.05737, section 3.1, the index of a token)

Such a codebook is never searched, and a soft assignment to it is a product over the bits,

    p(c | z) = prod_d sigmoid(+-l_d)      with l_d the log-odds of bit d and + where the bit of c is 1,

which is what makes entropies over all K codes cheap: that of one latent is a sum over its bits, and the mean over a
batch is a product of two matrices with about sqrt(K) columns each.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from vqtok.options import Allowed, TrainingOnly
from vqtok.quantizers.base import Quantizer, QuantizerOptions, QuantizerOutput
from vqtok.quantizers.distributed import mean_over_processes
from vqtok.quantizers.gradients import straight_through
from vqtok.quantizers.soft_bits import bit_entropy

__all__ = ["BitOptions", "BitQuantizer", "bits_of", "codes_of", "mean_of_sums"]


MOST_CODES = 2**62  # codes are int64


def bits_of(codes: Tensor, number: int) -> Tensor:
    """The bits of codes, the least significant first: int64 (B, h, w) -> bool (B, number, h, w)."""
    shifts = torch.arange(number, device=codes.device).view(1, -1, 1, 1)
    return (codes.unsqueeze(1) >> shifts) & 1 == 1


def codes_of(bits: Tensor) -> Tensor:
    """The codes that bits stand for, the least significant first: bool (B, D, h, w) -> int64 (B, h, w)."""
    shifts = torch.arange(bits.shape[1], device=bits.device).view(1, -1, 1, 1)
    return (bits.long() << shifts).sum(dim=1)


def mean_of_sums(sums: Tensor, rows: int, *, over_processes: bool) -> Tensor:
    """Sums (M,) over some rows -> means (M,) over the rows of all processes, with the gradient of those.

    Zeros where there is no row at all. Two means over processes are divided by each other: of the sums and of the
    numbers of rows. So no process has to keep a term for each row, as `mean_over_processes` over rows would ask for.
    """
    totals = torch.cat([sums, sums.new_full((1,), float(rows))])
    if over_processes:
        totals = mean_over_processes(totals[None])
    return totals[:-1] / totals[-1].clamp(min=torch.finfo(totals.dtype).eps)


def is_power_of_two(size: int) -> int:
    """The size, refused where no whole number of bits has as many codes."""
    if not 2 <= size <= MOST_CODES or size & (size - 1):
        below = min(1 << max(1, size.bit_length() - 1), MOST_CODES // 2) if size > 0 else 2
        raise ValueError(f"take {below} or {2 * below}")
    return size


class BitOptions(QuantizerOptions):
    """What methods have whose codes are signs."""

    codebook_size: Annotated[int, AfterValidator(is_power_of_two), Allowed("a power of two up to 2^62")] = Field(
        512, description="number of codes, K; the latents have log2 K dimensions"
    )
    beta: Annotated[float, TrainingOnly()] = Field(0.25, ge=0, description="weight of the commitment loss")
    entropy_weight: Annotated[float, TrainingOnly()] = Field(
        0.1, ge=0, description="weight of the entropy term, in nats"
    )
    diversity_gamma: Annotated[float, TrainingOnly()] = Field(
        1.0, ge=0, description="weight of its second part, which spreads a batch over the codes"
    )


class BitQuantizer(Quantizer):
    """What methods whose codes are signs share. There is nothing to learn and nothing to save.

    In training, means are over the batch of all processes, and so is their gradient.

    Shapes: latents (B, D, h, w); codes (B, h, w) in [0, K).
    """

    scale: float
    """Every number of a code is this or minus this."""

    options: BitOptions

    spreads: bool = True
    """Whether the second part of the entropy term is worked out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.codebook_size = self.options.codebook_size
        self.code_dim = self.codebook_size.bit_length() - 1
        self.code_levels = (2,) * self.code_dim

    @abstractmethod
    def bits(self, latents: Tensor) -> Tensor:
        """Which numbers of latents (B, D, h, w) are positive, bool; what exactly 0 is, the paper of a method says."""

    @abstractmethod
    def project(self, latents: Tensor) -> Tensor:
        """Latents (B, D, h, w), float32, brought to where the codes are."""

    @abstractmethod
    def commitment(self, differences: Tensor) -> Tensor:
        """What latents less their codes, (B, D, h, w), sum up to: a scalar that is divided by the number of rows."""

    @abstractmethod
    def log_odds(self, projected: Tensor) -> Tensor:
        """The logits of the bits, (B, D, h, w), of projected latents."""

    @abstractmethod
    def assignment_sums(self, logits: Tensor) -> Tensor:
        """Sums over the rows, (M,), whose means `use_entropy` asks for; logits (D, N)."""

    @abstractmethod
    def use_entropy(self, means: Tensor) -> Tensor:
        """H(E[p(c | z)]), a scalar, from the means of `assignment_sums`."""

    def reset_parameters(self) -> None:
        """There are none."""

    @torch.no_grad()
    def encode(self, latents: Tensor) -> Tensor:
        return codes_of(self.bits(latents))

    def decode(self, codes: Tensor) -> Tensor:
        return self.corners(bits_of(codes, self.code_dim))

    @torch.no_grad()
    def distortion(self, latents: Tensor) -> Tensor:
        return (self.project(latents.float()) - self.corners(self.bits(latents))).square().sum(dim=1)

    def forward(self, latents: Tensor) -> QuantizerOutput:
        with torch.autocast(latents.device.type, enabled=False):
            projected = self.project(latents.float())
            bits = self.bits(latents)
            vectors = self.corners(bits)
            logits = self.log_odds(projected).transpose(0, 1).flatten(1)
            sums = torch.stack([self.commitment(projected - vectors), bit_entropy(logits).sum()])
            if self.spreads:
                sums = torch.cat([sums, self.assignment_sums(logits)])
            means = mean_of_sums(sums, logits.shape[1], over_processes=self.training)
            commitment, use = means[0], means[1]
            metrics = {"commitment": commitment, "code_entropy": use}
            if self.spreads:
                metrics["use_entropy"] = self.use_entropy(means[2:])
                use = use - self.options.diversity_gamma * metrics["use_entropy"]
            loss = self.options.beta * commitment + self.options.entropy_weight * use
            quantized = straight_through(projected, vectors)
        return QuantizerOutput(
            quantized=quantized,
            codes=codes_of(bits),
            loss=loss,
            metrics={name: value.detach() for name, value in metrics.items()},
        )

    def corners(self, bits: Tensor) -> Tensor:
        """The vectors of codes by their bits: bool -> float32 of the same shape."""
        return bits.float().mul_(2 * self.scale).sub_(self.scale)
