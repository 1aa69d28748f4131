"""Vector quantization whose codebook follows a moving average: van den Oord et al. 2017, appendix A.1, equations 6-8.

With n_k the number of latents that fell to code k in a batch and s_k their sum,

    N_k <- gamma N_k + (1 - gamma) n_k        m_k <- gamma m_k + (1 - gamma) s_k        e_k = m_k / N_k

that is online k-means. N is smoothed (Laplace) before the division, (N_k + eps) / (sum N + K eps) * sum N, so that a
code that is hardly used keeps a finite vector. Only the commitment term of the loss is left.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, mse_loss

from vqtok.errors import ConfigurationError
from vqtok.quantizers.base import QuantizerOutput, from_rows, straight_through, to_rows
from vqtok.quantizers.codebook import CodebookQuantizer, all_reduce_sum
from vqtok.quantizers.lookup import nearest_codes

__all__ = ["EMAQuantizer"]


class EMAQuantizer(CodebookQuantizer):
    """Nearest code, straight-through gradient, codebook as the moving average of the latents of each code.

    The codebook, the counts N (`cluster_size`) and the sums m (`code_sums`) are persistent float32 buffers, updated at
    the end of each training forward pass from the batch of all processes.

    Args:
        codebook_size: K, number of codes.
        code_dim: D, dimension of each.
        beta: weight of the commitment of the encoder to its codes.
        decay: gamma, in [0, 1).
        epsilon: Laplace smoothing of the counts.
        start, restart_threshold: see CodebookQuantizer.

    Shapes: latents (B, D, h, w); codes (B, h, w) in [0, K).
    """

    code_sums: Tensor
    training_state = ("cluster_size", "code_sums", "started")

    def __init__(
        self,
        *,
        codebook_size: int = 512,
        code_dim: int = 64,
        beta: float = 0.25,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        start: str = "latents",
        restart_threshold: float = 0.05,
    ) -> None:
        super().__init__(
            codebook_size=codebook_size,
            code_dim=code_dim,
            start=start,
            restart_threshold=restart_threshold,
            decay=decay,
        )
        if not beta >= 0:
            raise ConfigurationError(f"quantizer.beta must be at least 0, got {beta}")
        if not epsilon > 0:
            raise ConfigurationError(f"quantizer.epsilon must be above 0, got {epsilon}")
        self.beta = beta
        self.epsilon = epsilon
        self.register_buffer("codebook", torch.empty(codebook_size, code_dim))
        self.register_buffer("code_sums", torch.empty(codebook_size, code_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.code_sums)  # the first training batch makes them N e

    def forward(self, latents: Tensor) -> QuantizerOutput:
        batch, _, height, width = latents.shape
        with torch.autocast(latents.device.type, enabled=False):
            rows = to_rows(latents)
            if self.training:
                self.start_once(rows.detach())
            codes = nearest_codes(rows.detach(), self.codebook)
            vectors = embedding(codes, self.codebook)
            commitment = mse_loss(rows, vectors)
            quantized = straight_through(rows, vectors)
            if self.training:
                self.update(rows.detach(), codes)
        return QuantizerOutput(
            quantized=from_rows(quantized, (batch, height, width)),
            codes=codes.view(batch, height, width),
            loss=self.beta * commitment,
            metrics={"commitment": commitment.detach()},
        )

    @torch.no_grad()
    def update(self, rows: Tensor, codes: Tensor) -> None:
        """One step of the moving averages; rows (N, D) and their codes (N,) of this process."""
        counts = self.count_use(rows, codes)
        sums = torch.zeros_like(self.code_sums).index_add_(0, codes, rows)
        all_reduce_sum(sums)
        self.code_sums.lerp_(sums, 1 - self.decay)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + self.epsilon) / (total + self.codebook_size * self.epsilon) * total
        self.codebook.copy_(self.code_sums / smoothed[:, None])
        self.restart_dead(rows, counts.sum())

    @torch.no_grad()
    def place(self, vectors: Tensor, chosen: Tensor) -> None:
        super().place(vectors, chosen)
        sums = self.cluster_size[:, None] * vectors
        self.code_sums.copy_(torch.where(chosen[:, None], sums, self.code_sums))
