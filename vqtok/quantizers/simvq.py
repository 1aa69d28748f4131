"""A frozen codebook under a learned linear map: SimVQ, Zhu et al. 2024, arXiv:2411.02038, section 4.

    e_k = c_k W        L = reconstruction + ||sg[z] - e||^2 + beta ||z - sg[e]||^2

The coefficients c stay as they were drawn, and only W learns. A step for one code moves W, and with it all codes at
once, so that none is left behind however large the codebook is.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from vqtok.quantizers.codebook import CodebookQuantizer, QuantizedRows, quantize_to_nearest
from vqtok.quantizers.codebook_options import NearestCodeOptions

__all__ = ["SimVQOptions", "SimVQuantizer"]


class SimVQOptions(NearestCodeOptions):
    """Options of `simvq`; `init` says where the codes are frozen, "normal" in the paper."""

    type: Literal["simvq"] = "simvq"


class SimVQuantizer(CodebookQuantizer):
    """Nearest code of a fixed codebook under a learned map. Nothing restarts: the codes cannot move one by one.

    `codebook` (K, d) is a buffer that only `init` ever fills; `codebook_map` is W (d, d), the identity at first.

    Shapes: latents (B, D, h, w); codes (B, h, w) in [0, K).
    """

    paper = "Zhu et al. 2024, arXiv:2411.02038"

    Options = SimVQOptions
    options: SimVQOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register_buffer("codebook", torch.empty(self.codebook_size, self.embedding_dim))
        self.codebook_map = nn.Parameter(torch.empty(self.embedding_dim, self.embedding_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.eye_(self.codebook_map)

    def quantize_rows(self, rows: Tensor) -> QuantizedRows:
        return quantize_to_nearest(self, self.options, rows, learn_codebook=True)

    def embeddings(self) -> Tensor:
        return self.normalized(self.codebook.float() @ self.codebook_map.float())
