"""Binary spherical quantization: signs of latents on the unit sphere. Zhao et al. 2024, arXiv:2406.07548.

    u = z / ||z||        code = sign(u) / sqrt(D)        sign(0) = 1

so that latents and codes have one length, and no latent is further from its code than sqrt(2 - 2 / sqrt(D)). The soft
assignment and the entropy term are

    q(c | u) = exp(tau c^T u) / sum_c exp(tau c^T u) = prod_d sigmoid(2 tau c_d u_d)
    L = E[H(q(c | u))] - gamma sum_d H(E[q(c_d | u_d)])

where the sum over the entropies of the mean bits stands for H(E[q(c | u)]) (the paper's equation 8). It is the entropy
of the product of the marginals of E[q], so never below the exact one and equal to it where the bits are independent
over the batch; it costs D numbers rather than K, so codes of any number of bits can be had.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from vqtok.options import TrainingOnly
from vqtok.quantizers.base import entropy
from vqtok.quantizers.bits import BitOptions, BitQuantizer

__all__ = ["BSQOptions", "BinarySphericalQuantizer", "on_sphere"]


class BSQOptions(BitOptions):
    """Options of `bsq`, with the defaults of the paper's code; it writes tau as half of this one.

    beta: no latent can get far from its code.
    """

    type: Literal["bsq"] = "bsq"
    beta: Annotated[float, TrainingOnly()] = Field(
        0.0, ge=0, description="weight of the commitment loss, ||u - c||^2 on the sphere"
    )
    inverse_temperature: Annotated[float, TrainingOnly()] = Field(
        2.0, gt=0, description="tau, the sharpness of the soft assignments"
    )


def on_sphere(latents: Tensor) -> Tensor:
    """Latents (B, D, h, w) at length 1 over D. Zeros stay zeros, and no length over- or underflows on the way."""
    largest = latents.detach().abs().amax(dim=1, keepdim=True)
    latents = latents / torch.where(largest == 0, 1.0, largest)  # its factor falls out of u, gradient and all
    return latents * latents.square().sum(dim=1, keepdim=True).clamp(min=0.5).rsqrt()


class BinarySphericalQuantizer(BitQuantizer):
    """Codes in {-1, 1}^D / sqrt(D), the signs of the latents; the gradient goes through the projection on the sphere.

    Shapes: latents (B, D, h, w); codes (B, h, w) in [0, K), the first dimension as the least significant bit.
    """

    paper = "Zhao et al. 2024, arXiv:2406.07548"

    Options = BSQOptions
    options: BSQOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.scale = 1 / math.sqrt(self.code_dim)

    def bits(self, latents: Tensor) -> Tensor:
        return latents >= 0

    def project(self, latents: Tensor) -> Tensor:
        return on_sphere(latents)

    def commitment(self, differences: Tensor) -> Tensor:
        return differences.square().sum()

    def log_odds(self, projected: Tensor) -> Tensor:
        return projected * (2 * self.options.inverse_temperature * self.scale)

    def assignment_sums(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits).sum(dim=1)

    def use_entropy(self, means: Tensor) -> Tensor:
        return entropy(means) + entropy(1 - means)
