"""Vector quantization whose codebook follows a moving average: van den Oord et al. 2017, appendix A.1, equations 6-8.

With n_k the number of latents that fell to code k in a batch and s_k their sum,

    N_k <- gamma N_k + (1 - gamma) n_k        m_k <- gamma m_k + (1 - gamma) s_k        e_k = m_k / N_k

that is online k-means. N is smoothed (Laplace) before the division, (N_k + eps) / (sum N + K eps) * sum N, so that a
code that is hardly used keeps a finite vector. Only the commitment term of the loss is left.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vqtok.options import TrainingOnly
from vqtok.quantizers.codebook import CodebookQuantizer, QuantizedRows, quantize_to_nearest
from vqtok.quantizers.codebook_options import NearestCodeOptions
from vqtok.quantizers.restart import BatchUsage, CodeUsage, RestartOptions

__all__ = ["EMAOptions", "EMAQuantizer"]


# Times epsilon. Smoothed, the vector of a code whose count is not far above epsilon would go to 0: under this it stays.
LEAST_COUNT = 100


class EMAOptions(RestartOptions, NearestCodeOptions):
    """Options of `ema`; `decay` is gamma."""

    type: Literal["ema"] = "ema"
    epsilon: Annotated[float, TrainingOnly()] = Field(1e-5, gt=0, description="Laplace smoothing of the counts")


class EMAQuantizer(CodebookQuantizer):
    """Nearest code, codebook as the moving average of the latents of each code.

    The codebook, the counts N (`usage.cluster_size`) and the sums m (`code_sums`) are persistent float32 buffers,
    updated at the end of each training batch from the rows of all processes.

    Shapes: latents (B, D, h, w); codes (B, h, w) in [0, K).
    """

    Options = EMAOptions
    options: EMAOptions
    code_sums: Tensor
    usage: CodeUsage
    keeps_sums = True
    training_state = (*CodebookQuantizer.training_state, "code_sums")

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register_buffer("codebook", torch.empty(self.codebook_size, self.embedding_dim))
        self.register_buffer("code_sums", torch.empty(self.codebook_size, self.embedding_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.code_sums)  # `begin` makes them N e

    def quantize_rows(self, rows: Tensor) -> QuantizedRows:
        return quantize_to_nearest(self, self.options, rows, learn_codebook=False)

    def begin(self, vectors: Tensor, rows_in_batch: int) -> None:
        super().begin(vectors, rows_in_batch)
        self.code_sums.copy_(self.usage.cluster_size[:, None] * vectors)

    def learn_from(self, batch: BatchUsage) -> None:
        counts, epsilon = self.usage.cluster_size, self.options.epsilon
        restarted = batch.restarted[:, None]
        averaged = self.code_sums.lerp(batch.sums, batch.step)
        self.code_sums.copy_(torch.where(restarted, counts[:, None] * batch.sums, averaged))
        smoothed = (counts + epsilon) / (counts.sum() + self.codebook_size * epsilon) * counts.sum()
        moved = torch.where(restarted, batch.sums, self.code_sums / smoothed[:, None])
        # A batch without rows may come before the codes have started, when all sums are 0.
        least = (self.usage.even_use() / 10).clamp(max=LEAST_COUNT * epsilon)
        moves = (restarted | (counts > least)[:, None]) & (batch.step > 0)
        self.codebook.copy_(torch.where(moves, moved, self.codebook))
