"""Vector quantization whose codebook learns by gradient: van den Oord et al. 2017, arXiv:1711.00937, equation 3.

    L = reconstruction + ||sg[z] - e||^2 + beta ||z - sg[e]||^2

The second term moves the codes to the latents, the third keeps the encoder near its codes; beta weighs the encoder's
term. Both are means over all elements, so that no term depends on the batch size or the code dimension.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vqtok.quantizers.nearest import NearestCodeQuantizer
from vqtok.quantizers.restart import RestartingQuantizer

__all__ = ["VectorQuantizer"]


class VectorQuantizer(NearestCodeQuantizer, RestartingQuantizer):
    """Nearest code, codebook trained by the optimizer.

    Args:
        shared: see NearestCodeQuantizer, RestartingQuantizer and CodebookQuantizer.

    Shapes: latents (B, D, h, w); codes (B, h, w) in [0, K).
    """

    learned_by_gradient = True

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)
        self.codebook = nn.Parameter(torch.empty(self.codebook_size, self.vector_dim))
        self.reset_parameters()
