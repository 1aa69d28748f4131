"""VIMCO: several samples of discrete codes, each judged against the others. Mnih and Rezende 2016, arXiv:1602.06725.

The bound on ln p(x) is L = ln 1/S sum_s w_s with w_s = p(x, z_s) / q(z_s | x), and its gradient (equations 5 and 10) is

    sum_s (L - L_-s) grad ln q(z_s | x)  +  sum_s w_s / (sum_j w_j) grad ln w_s

L_-s is what the bound would be with the geometric mean of the other weights in place of w_s (equations 8 and 9). It
does not depend on z_s, so that the gradient stays unbiased, and each sample gets credit for what it alone adds.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from vqtok.baselines.categorical import CategoricalModel, CategoricalOptions
from vqtok.baselines.configuration import BaselineConfig
from vqtok.baselines.latent_variable import multi_sample_bound

__all__ = ["VIMCO", "VIMCOConfig", "VIMCOOptions", "leave_one_out"]


class VIMCOOptions(CategoricalOptions):
    """Options of `vimco`."""

    type: Literal["vimco"] = "vimco"
    num_samples: int = Field(
        5, ge=2, le=2**12, description="samples of the codes for each image in training; the paper takes up to 50"
    )


class VIMCOConfig(BaselineConfig):
    """Configuration of a VIMCO."""

    model_type = "vqtok-vimco"
    method = VIMCOOptions


class VIMCO(CategoricalModel):
    """Codes that learn from what each sample adds to the bound of all."""

    config_class = VIMCOConfig

    def __init__(self, config: VIMCOConfig) -> None:
        super().__init__(config)
        self.post_init()

    def signals(self, log_weights: Tensor, pixel_values: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return multi_sample_bound(log_weights) - leave_one_out(log_weights), {}


def leave_one_out(log_weights: Tensor) -> Tensor:
    """L_-s of each sample, (S, B) -> (S, B): the bound with the mean of the other logarithms in place of its own."""
    samples = len(log_weights)
    others = (log_weights.sum(0, keepdim=True) - log_weights) / (samples - 1)
    own = torch.eye(samples, dtype=torch.bool, device=log_weights.device)[:, :, None]
    replaced = torch.where(own, others[:, None], log_weights[None])  # (S, S, B): row s without its own
    return torch.logsumexp(replaced, dim=1) - math.log(samples)
