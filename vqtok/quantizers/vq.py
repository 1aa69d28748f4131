"""Vector quantization whose codebook learns by gradient: van den Oord et al. 2017, arXiv:1711.00937, equation 3.

    L = reconstruction + ||sg[z] - e||^2 + beta ||z - sg[e]||^2

The second term moves the codes to the latents, the third keeps the encoder near its codes; beta weighs the encoder's
term. Both are means over all elements, so that no term depends on the batch size or the code dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, mse_loss

from vqtok.errors import ConfigurationError
from vqtok.quantizers.base import QuantizerOutput, from_rows, straight_through, to_rows
from vqtok.quantizers.codebook import CodebookQuantizer
from vqtok.quantizers.lookup import nearest_codes

__all__ = ["VectorQuantizer"]


class VectorQuantizer(CodebookQuantizer):
    """Nearest code, straight-through gradient, codebook trained by the optimizer.

    Args:
        codebook_size: K, number of codes.
        code_dim: D, dimension of each.
        beta: weight of the commitment of the encoder to its codes; 0.25 as in the paper.
        start, restart_threshold, decay: see CodebookQuantizer.

    Shapes: latents (B, D, h, w); codes (B, h, w) in [0, K).
    """

    def __init__(
        self,
        *,
        codebook_size: int = 512,
        code_dim: int = 64,
        beta: float = 0.25,
        start: str = "latents",
        restart_threshold: float = 0.05,
        decay: float = 0.99,
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
        self.beta = beta
        self.codebook = nn.Parameter(torch.empty(codebook_size, code_dim))
        self.reset_parameters()

    def forward(self, latents: Tensor) -> QuantizerOutput:
        batch, _, height, width = latents.shape
        with torch.autocast(latents.device.type, enabled=False):
            rows = to_rows(latents)
            if self.training:
                self.start_once(rows.detach())
            codes = nearest_codes(rows.detach(), self.codebook.detach())
            vectors = embedding(codes, self.codebook)
            codebook_loss = mse_loss(vectors, rows.detach())
            commitment = mse_loss(rows, vectors.detach())
            quantized = straight_through(rows, vectors)
            if self.training:
                counts = self.count_use(rows, codes)
                self.restart_dead(rows.detach(), counts.sum())
        return QuantizerOutput(
            quantized=from_rows(quantized, (batch, height, width)),
            codes=codes.view(batch, height, width),
            loss=codebook_loss + self.beta * commitment,
            metrics={"codebook": codebook_loss.detach(), "commitment": commitment.detach()},
        )
