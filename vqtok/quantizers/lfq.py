"""Lookup-free quantization: the signs of the latents are the code. Yu et al. 2023, arXiv:2310.05737, section 3.1.

The codebook is every corner of a cube, {-1, 1}^D (equation 3). Its entropy term (equation 5),

    L = E[H(p(c | z))] - gamma H(E[p(c | z)])        p(c | z) proportional to exp(-||z - c||^2 / temperature)

makes each latent choose surely and all latents together choose everything. The exponent splits over the dimensions, so
bit d of the code has log-odds 4 z_d / temperature. Both entropies are exact over all K codes: the first is a sum over
bits, and E[p(c | z)], with the bits of a code in two halves a and b, is the matrix E[p(a | z) p(b | z)^T], one product
of (sqrt(K), N) by (N, sqrt(K)). The memory is K + 2 N sqrt(K) numbers; N K are never held.
"""

from __future__ import annotations

from torch import Tensor

from vqtok.errors import ConfigurationError
from vqtok.quantizers.base import entropy
from vqtok.quantizers.bits import BitQuantizer
from vqtok.quantizers.soft_bits import sum_of_assignments

__all__ = ["LookupFreeQuantizer"]


class LookupFreeQuantizer(BitQuantizer):
    """Codes in {-1, 1}^D, the signs of the latents; a latent of exactly 0, which the paper sends to -1, goes to 1.

    Args:
        codebook_size: K, a power of two; D = log2 K.
        beta: weight of the commitment, the mean over all elements of (z - c)^2.
        entropy_weight: weight of the entropy term in nats; 0.1 as in MaskGIT, which the paper follows.
        diversity_gamma: weight of H(E[p]) within that term; 1 as in the paper.
        temperature: of the soft assignment p. Latents beyond the size of it are sure already and feel nothing of the
            first entropy. MaskGIT has 0.01; CIFAR-10, 400 steps, MSE over variance and codes in use of 512: 0.2075 and
            512 with 0.01, 0.1844 and 512 with 1, 0.1876 and 22 with 8, and 0.1879 and 45 with 1 and a tenth of the
            weight.

    Shapes: latents (B, D, h, w); codes (B, h, w) in [0, K), the first dimension as the least significant bit.
    """

    paper = "Yu et al. 2023, arXiv:2310.05737"

    scale = 1.0

    def __init__(
        self,
        *,
        codebook_size: int = 512,
        beta: float = 0.25,
        entropy_weight: float = 0.1,
        diversity_gamma: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(
            codebook_size=codebook_size, beta=beta, entropy_weight=entropy_weight, diversity_gamma=diversity_gamma
        )
        if not temperature > 0:
            raise ConfigurationError(f"quantizer.temperature must be above 0, got {temperature}")
        self.temperature = temperature

    def place(self, latents: Tensor) -> Tensor:
        return latents

    def commitment(self, differences: Tensor) -> Tensor:
        return differences.square().sum() / self.code_dim

    def log_odds(self, placed: Tensor) -> Tensor:
        return placed * (4 / self.temperature)

    def assignment_sums(self, logits: Tensor) -> Tensor:
        return sum_of_assignments(logits)

    def use_entropy(self, means: Tensor) -> Tensor:
        return entropy(means)
