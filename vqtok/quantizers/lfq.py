"""Lookup-free quantization: the signs of the latents are the code. Yu et al. 2023, arXiv:2310.05737, section 3.1.

The codebook is every corner of a cube, {-s, s}^D (equation 3, with s = 1). Its entropy term (equation 5),

    L = E[H(p(c | z))] - gamma H(E[p(c | z)])        p(c | z) proportional to exp(-||z - c||^2 / temperature)

makes each latent choose surely and all latents together choose everything. The exponent splits over the dimensions, so
bit d of the code has log-odds 4 s z_d / temperature. Both entropies are exact over all K codes: the first is a sum over
bits, and E[p(c | z)], with the bits of a code in two halves a and b, is the matrix E[p(a | z) p(b | z)^T], one product
of (sqrt(K), N) by (N, sqrt(K)). The memory grows as K + 2 N sqrt(K); N K numbers are never held. Without the term that
product is left out, and `use_entropy` is not among the metrics.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from vqtok.options import TrainingOnly
from vqtok.quantizers.base import entropy
from vqtok.quantizers.bits import BitOptions, BitQuantizer
from vqtok.quantizers.soft_bits import sum_of_assignments

__all__ = ["LFQOptions", "LookupFreeQuantizer"]


# A training step with N = 2,048 holds about eight sums of K numbers: 0.5 GiB and 7 s on one core at 2^24 codes.
MOST_SUMMED = 2**26


class LFQOptions(BitOptions):
    """Options of `lfq`. The entropy term weighs 0.1 as in MaskGIT, which the paper follows.

    Codes of 1 and -1 measured far worse than smaller ones, with the term and without it, and a tenth of beta makes up
    for half of that: `python scripts/compare_quantizers.py lfq`.
    """

    type: Literal["lfq"] = "lfq"
    scale: float = Field(0.07, gt=0, description="every number of a code is this or minus this; 1 in the paper")
    temperature: Annotated[float, TrainingOnly()] = Field(
        0.07, gt=0, description="temperature of the soft assignments of the entropy term"
    )

    @model_validator(mode="after")
    def _sums_fit(self) -> Self:
        if self.entropy_weight > 0 and self.codebook_size > MOST_SUMMED:
            raise ValueError(
                f"the entropy term of lfq is a sum over all codes, of which there may be at most {MOST_SUMMED:,}, got "
                f"{self.codebook_size:,}: set entropy_weight=0, or take bsq, whose term is a sum over bits"
            )
        return self


class LookupFreeQuantizer(BitQuantizer):
    """Codes in {-s, s}^D, the signs of the latents; 0 goes to -s.

    Shapes: latents (B, D, h, w); codes (B, h, w) in [0, K), the first dimension as the least significant bit.
    """

    paper = "Yu et al. 2023, arXiv:2310.05737"

    Options = LFQOptions
    options: LFQOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.scale = self.options.scale
        self.spreads = self.options.entropy_weight > 0

    def bits(self, latents: Tensor) -> Tensor:
        return latents > 0

    def project(self, latents: Tensor) -> Tensor:
        return latents

    def commitment(self, differences: Tensor) -> Tensor:
        return differences.square().sum() / self.code_dim

    def log_odds(self, projected: Tensor) -> Tensor:
        return projected * (4 * self.scale / self.options.temperature)

    def assignment_sums(self, logits: Tensor) -> Tensor:
        return sum_of_assignments(logits)

    def use_entropy(self, means: Tensor) -> Tensor:
        return entropy(means)
