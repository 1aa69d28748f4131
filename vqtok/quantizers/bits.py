"""Codes made of signs: D numbers fall to one of K = 2^D codes, whose bits say which of the numbers are not negative.

    code = sum_d 2^d [z_d >= 0]           (Yu et al. 2023, arXiv:2310.05737, section 3.1, the index of a token)

Such a codebook is never searched, and a soft assignment to it is a product over the bits,

    p(c | z) = prod_d sigmoid(+-l_d)      with l_d the log-odds of bit d and + where the bit of c is 1,

which is what makes entropies over all K codes cheap: that of one latent is a sum over its bits, and the mean over a
batch is a product of two matrices with about sqrt(K) columns each.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from vqtok.errors import ConfigurationError
from vqtok.quantizers.base import Quantizer, QuantizerOutput, at_least_zero, straight_through
from vqtok.quantizers.distributed import mean_over_processes
from vqtok.quantizers.soft_bits import bit_entropy

__all__ = ["BitQuantizer", "bits_of", "codes_of", "mean_of_sums"]


def bits_of(codes: Tensor, number: int) -> Tensor:
    """The bits of codes, the least significant first: int64 (B, h, w) -> bool (B, number, h, w)."""
    places = torch.arange(number, device=codes.device).view(1, -1, 1, 1)
    return (codes.unsqueeze(1) >> places) & 1 == 1


def codes_of(bits: Tensor) -> Tensor:
    """The codes that bits stand for, the least significant first: bool (B, D, h, w) -> int64 (B, h, w)."""
    places = torch.arange(bits.shape[1], device=bits.device).view(1, -1, 1, 1)
    return (bits.long() << places).sum(dim=1)


def mean_of_sums(sums: Tensor, rows: int, *, over_processes: bool) -> Tensor:
    """Sums (M,) over some rows -> means (M,) over the rows of all processes, with the gradient of those.

    Zeros where there is no row at all. Two means over processes are divided by each other: of the sums and of the
    numbers of rows. So no process has to keep a term for each row, as `mean_over_processes` over rows would ask for.
    """
    totals = torch.cat([sums, sums.new_full((1,), float(rows))])
    if over_processes:
        totals = mean_over_processes(totals[None])
    return totals[:-1] / totals[-1].clamp(min=torch.finfo(totals.dtype).eps)


class BitQuantizer(Quantizer):
    """What methods whose codes are signs share. There is nothing to learn and nothing to save.

    A latent of exactly 0 counts as positive, so that every code is a corner. In training, means are over the batch of
    all processes, and so is their gradient.

    Args:
        codebook_size: K, a power of two, at least 2; D = log2 K.
        beta: weight of the commitment of the encoder to its codes.
        entropy_weight: weight of the entropy term, E[H(p(c | z))] - diversity_gamma H(E[p(c | z)]), in nats.
        diversity_gamma: weight of the second part of that, which spreads a batch over the codes, against the first,
            which makes each choice a sure one.

    Shapes: latents (B, D, h, w); codes (B, h, w) in [0, K).
    """

    scale: float
    """Every number of a code is this or minus this."""

    def __init__(self, *, codebook_size: int, beta: float, entropy_weight: float, diversity_gamma: float) -> None:
        super().__init__()
        at_least_zero(beta=beta, entropy_weight=entropy_weight, diversity_gamma=diversity_gamma)
        self.codebook_size = codebook_size
        self.code_dim = number_of_bits(codebook_size)
        self.beta = beta
        self.entropy_weight = entropy_weight
        self.diversity_gamma = diversity_gamma

    @abstractmethod
    def place(self, latents: Tensor) -> Tensor:
        """Latents (B, D, h, w), float32, where they are compared with the codes."""

    @abstractmethod
    def commitment(self, differences: Tensor) -> Tensor:
        """What latents less their codes, (B, D, h, w), sum up to: a scalar that is divided by the number of rows."""

    @abstractmethod
    def log_odds(self, placed: Tensor) -> Tensor:
        """The logits of the bits, (B, D, h, w), of latents that are in place."""

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
        return codes_of(latents >= 0)

    def decode(self, codes: Tensor) -> Tensor:
        return self.corners(bits_of(codes, self.code_dim))

    @torch.no_grad()
    def distortion(self, latents: Tensor) -> Tensor:
        return (self.place(latents.float()) - self.corners(latents >= 0)).square().sum(dim=1)

    def forward(self, latents: Tensor) -> QuantizerOutput:
        with torch.autocast(latents.device.type, enabled=False):
            placed = self.place(latents.float())
            bits = latents >= 0
            vectors = self.corners(bits)
            logits = self.log_odds(placed).transpose(0, 1).flatten(1)
            parts = [self.commitment(placed - vectors), bit_entropy(logits).sum()]
            sums = torch.cat([torch.stack(parts), self.assignment_sums(logits)])
            means = mean_of_sums(sums, logits.shape[1], over_processes=self.training)
            commitment, code_entropy, use_entropy = means[0], means[1], self.use_entropy(means[2:])
            loss = self.beta * commitment + self.entropy_weight * (code_entropy - self.diversity_gamma * use_entropy)
            quantized = straight_through(placed, vectors)
        metrics = {"commitment": commitment, "code_entropy": code_entropy, "use_entropy": use_entropy}
        return QuantizerOutput(
            quantized=quantized,
            codes=codes_of(bits),
            loss=loss,
            metrics={name: value.detach() for name, value in metrics.items()},
        )

    def corners(self, bits: Tensor) -> Tensor:
        """The vectors of codes by their bits: bool -> float32 of the same shape."""
        return bits.float().mul_(2 * self.scale).sub_(self.scale)


def number_of_bits(codebook_size: int) -> int:
    """log2 of a codebook size, refused where that is not a whole number."""
    if codebook_size >= 2 and codebook_size & (codebook_size - 1) == 0:
        return codebook_size.bit_length() - 1
    below = 1 << int(math.log2(max(codebook_size, 2)))
    allowed = "2 or 4" if codebook_size < 2 else f"{below} or {2 * below}"
    raise ConfigurationError(
        f"quantizer.codebook_size must be a power of two for a code of signs, got {codebook_size}: take {allowed}"
    )
