"""Vector quantization whose codebook follows a moving average: van den Oord et al. 2017, appendix A.1, equations 6-8.

With n_k the number of latents that fell to code k in a batch and s_k their sum,

    N_k <- gamma N_k + (1 - gamma) n_k        m_k <- gamma m_k + (1 - gamma) s_k        e_k = m_k / N_k

that is online k-means. N is smoothed (Laplace) before the division, (N_k + eps) / (sum N + K eps) * sum N, so that a
code that is hardly used keeps a finite vector. Only the commitment term of the loss is left.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vqtok.errors import ConfigurationError
from vqtok.quantizers.distributed import all_reduce_sum
from vqtok.quantizers.nearest import NearestCodeQuantizer
from vqtok.quantizers.restart import RestartingQuantizer

__all__ = ["EMAQuantizer"]


class EMAQuantizer(NearestCodeQuantizer, RestartingQuantizer):
    """Nearest code, codebook as the moving average of the latents of each code.

    The codebook, the counts N (`cluster_size`) and the sums m (`code_sums`) are persistent float32 buffers, updated at
    the end of each training forward pass from the batch of all processes. `decay` is gamma.

    Args:
        epsilon: Laplace smoothing of the counts.
        shared: see NearestCodeQuantizer, RestartingQuantizer and CodebookQuantizer.

    Shapes: latents (B, D, h, w); codes (B, h, w) in [0, K).
    """

    code_sums: Tensor
    training_state = ("cluster_size", "code_sums", "started")

    def __init__(self, *, epsilon: float = 1e-5, **shared: Any) -> None:
        super().__init__(**shared)
        if not epsilon > 0:
            raise ConfigurationError(f"quantizer.epsilon must be above 0, got {epsilon}")
        self.epsilon = epsilon
        self.register_buffer("codebook", torch.empty(self.codebook_size, self.vector_dim))
        self.register_buffer("code_sums", torch.empty(self.codebook_size, self.vector_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.code_sums)  # the first training batch makes them N e

    @torch.no_grad()
    def learn(self, rows: Tensor, codes: Tensor) -> None:
        counts = self.count_use(codes)
        sums = torch.zeros_like(self.code_sums).index_add_(0, codes, rows)
        all_reduce_sum(sums)
        self.code_sums.lerp_(sums, self.step(counts))
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + self.epsilon) / (total + self.codebook_size * self.epsilon) * total
        moved = self.code_sums / smoothed[:, None]
        # A batch without rows may come before the codes have started, when all sums are 0.
        torch.where(counts.sum() > 0, moved, self.codebook, out=self.codebook)
        self.restart_dead(rows, counts.sum())

    @torch.no_grad()
    def place(self, vectors: Tensor, chosen: Tensor) -> None:
        super().place(vectors, chosen)
        sums = self.cluster_size[:, None] * vectors
        torch.where(chosen[:, None], sums, self.code_sums, out=self.code_sums)
