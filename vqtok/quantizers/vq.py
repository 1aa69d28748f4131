"""Vector quantization whose codebook learns by gradient: van den Oord et al. 2017, arXiv:1711.00937, equation 3.

    L = reconstruction + ||sg[z] - e||^2 + beta ||z - sg[e]||^2

The second term moves the codes to the latents, the third keeps the encoder near its codes; beta weighs the encoder's
term. Both are means over all elements, so that no term depends on the batch size or the code dimension.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from vqtok.quantizers.codebook import CodebookQuantizer, QuantizedRows, quantize_to_nearest
from vqtok.quantizers.codebook_options import NearestCodeOptions
from vqtok.quantizers.restart import RestartOptions

__all__ = ["VQOptions", "VectorQuantizer"]


class VQOptions(RestartOptions, NearestCodeOptions):
    """Options of `vq`."""

    type: Literal["vq"] = "vq"


class VectorQuantizer(CodebookQuantizer):
    """Nearest code, codebook trained by the optimizer.

    Shapes: latents (B, D, h, w); codes (B, h, w) in [0, K).
    """

    Options = VQOptions
    options: VQOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.codebook = nn.Parameter(torch.empty(self.codebook_size, self.embedding_dim))
        self.reset_parameters()

    def quantize_rows(self, rows: Tensor) -> QuantizedRows:
        return quantize_to_nearest(self, self.options, rows, learn_codebook=True)
