"""Vector quantization whose codebook follows a moving average: van den Oord et al. 2017, appendix A.1, equations 6-8.

With n_k the number of latents that fell to code k in a batch and s_k their sum,

    N_k <- gamma N_k + (1 - gamma) n_k        m_k <- gamma m_k + (1 - gamma) s_k        e_k = m_k / N_k

that is online k-means. N is smoothed (Laplace) before the division, (N_k + eps) / (sum N + K eps) * sum N, so that a
code that is hardly used keeps a finite vector. Only the commitment term of the loss is left.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vqtok.quantizers.codebook import CodebookQuantizer, NearestCodeOptions, QuantizedRows, quantize_to_nearest
from vqtok.quantizers.distributed import all_reduce_sum, pick_random_rows
from vqtok.quantizers.restart import CodeUsage, RestartOptions

__all__ = ["EMAOptions", "EMAQuantizer"]


class EMAOptions(RestartOptions, NearestCodeOptions):
    """Options of `ema`; `decay` is gamma."""

    type: Literal["ema"] = "ema"
    epsilon: float = Field(1e-5, gt=0, description="Laplace smoothing of the counts")


class EMAQuantizer(CodebookQuantizer):
    """Nearest code, codebook as the moving average of the latents of each code.

    The codebook, the counts N (`usage.cluster_size`) and the sums m (`code_sums`) are persistent float32 buffers,
    updated at the end of each training forward pass from the batch of all processes.

    Shapes: latents (B, D, h, w); codes (B, h, w) in [0, K).
    """

    Options = EMAOptions
    options: EMAOptions
    code_sums: Tensor
    training_state = ("cluster_size", "code_sums", "initialized")

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register_buffer("codebook", torch.empty(self.codebook_size, self.embedding_dim))
        self.register_buffer("code_sums", torch.empty(self.codebook_size, self.embedding_dim))
        self.usage = CodeUsage(self.codebook_size, self.options)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.usage.reset_parameters()
        nn.init.zeros_(self.code_sums)  # the first training batch makes them N e

    def quantize_rows(self, rows: Tensor) -> QuantizedRows:
        return quantize_to_nearest(self, self.options, rows, learn_codebook=False)

    @torch.no_grad()
    def update(self, rows: Tensor, codes: Tensor) -> None:
        counts = self.usage.count(codes)
        sums = torch.zeros_like(self.code_sums).index_add_(0, codes, rows)
        all_reduce_sum(sums)
        self.code_sums.lerp_(sums, self.usage.step(counts))
        total, epsilon = self.usage.cluster_size.sum(), self.options.epsilon
        smoothed = (self.usage.cluster_size + epsilon) / (total + self.codebook_size * epsilon) * total
        moved = self.code_sums / smoothed[:, None]
        # A batch without rows may come before the codes have started, when all sums are 0.
        torch.where(counts.sum() > 0, moved, self.codebook, out=self.codebook)
        if self.options.restart_threshold > 0:
            dead = self.usage.restart_dead(counts.sum())
            self.set_codes(pick_random_rows(rows, self.codebook_size), dead)

    @torch.no_grad()
    def set_codes(self, vectors: Tensor, chosen: Tensor) -> None:
        super().set_codes(vectors, chosen)
        sums = self.usage.cluster_size[:, None] * vectors
        torch.where(chosen[:, None], sums, self.code_sums, out=self.code_sums)
