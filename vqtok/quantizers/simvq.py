"""A frozen codebook under a learned linear map: SimVQ, Zhu et al. 2024, arXiv:2411.02038, section 4.

    e_k = c_k W        L = reconstruction + ||sg[z] - e||^2 + beta ||z - sg[e]||^2

The coefficients c stay as they were drawn, and only W learns. A step for one code moves W, and with it all codes at
once, so that none is left behind however large the codebook is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vqtok.quantizers.nearest import NearestCodeQuantizer

__all__ = ["SimVQuantizer"]


class SimVQuantizer(NearestCodeQuantizer):
    """Nearest code among the images of a fixed codebook. Nothing restarts: the codes cannot move one by one.

    `codebook` (K, d) is a buffer that only `start` ever fills; `codebook_map` is W (d, d), the identity at first.

    Args:
        shared: see NearestCodeQuantizer and CodebookQuantizer. `start` says where the codes are frozen; the paper's
            is "normal" (CIFAR-10, 1,000 steps, MSE over variance: 0.0777, and 0.0690 with "latents").

    Shapes: latents (B, D, h, w); codes (B, h, w) in [0, K).
    """

    paper = "Zhu et al. 2024, arXiv:2411.02038"

    learned_by_gradient = True

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)
        self.register_buffer("codebook", torch.empty(self.codebook_size, self.vector_dim))
        self.codebook_map = nn.Parameter(torch.empty(self.vector_dim, self.vector_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.eye_(self.codebook_map)

    def table(self) -> Tensor:
        return self.compared(self.codebook.float() @ self.codebook_map.float())
