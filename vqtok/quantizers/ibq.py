"""Index back-propagation: Shi et al. 2024, arXiv:2412.02692, section 3.2.

    p = softmax(affinity(z, C))        index = onehot(argmax p) + p - sg[p]        z_q = index C

The choice is hard and its gradient is that of the soft assignment, so that every code gets one, not only the chosen.
The paper's affinity is the inner product z C^T. The double quantization loss, with e = C[argmax p],

    ||z_q - z||^2 + ||sg[e] - z||^2 + beta ||e - sg[z]||^2

holds latents and codes together on both ways. The entropy term of the paper is `entropy_weight`.

The defaults are not the paper's (metric=dot, temperature=1, no restart), with which the codebook collapsed on CIFAR-10:
`python scripts/compare_quantizers.py ibq`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vqtok.options import TrainingOnly
from vqtok.quantizers.base import mean_squared_error
from vqtok.quantizers.codebook import CodebookQuantizer, QuantizedRows
from vqtok.quantizers.codebook_options import CodebookOptions
from vqtok.quantizers.lookup import gather_codes, most_similar_codes
from vqtok.quantizers.restart import RestartOptions

__all__ = ["IBQOptions", "IndexBackpropagationQuantizer"]


class IBQOptions(RestartOptions, CodebookOptions):
    """Options of `ibq`."""

    type: Literal["ibq"] = "ibq"
    beta: Annotated[float, TrainingOnly()] = Field(
        0.25, ge=0, description="weight of the pull of the chosen codes to their latents"
    )
    temperature: Annotated[float, TrainingOnly()] = Field(
        0.02, gt=0, description="affinities are divided by it in p; where p is all but sure, no gradient passes"
    )
    metric: Literal["cosine", "dot", "euclidean"] = Field(  # type: ignore[assignment]  # one more than its parent's
        "cosine",
        description="the affinity: dot is the paper's inner product, cosine that of unit vectors, euclidean "
        "the negative squared distance",
    )


class IndexBackpropagationQuantizer(CodebookQuantizer):
    """The code of the greatest affinity, with a gradient to all codes.

    Training holds N x K soft assignments; encoding does not.

    Shapes: latents (B, D, h, w); codes (B, h, w) in [0, K).
    """

    paper = "Shi et al. 2024, arXiv:2412.02692"

    Options = IBQOptions
    options: IBQOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.codebook = nn.Parameter(torch.empty(self.codebook_size, self.embedding_dim))
        self.reset_parameters()

    def quantize_rows(self, rows: Tensor) -> QuantizedRows:
        embeddings = self.embeddings()
        codes = self.encode_rows(rows)
        chosen = gather_codes(embeddings, codes)
        p = (self.affinity(rows, embeddings) / self.options.temperature).softmax(dim=1)
        soft = p @ embeddings.detach()
        vectors = chosen + (soft - soft.detach())
        losses = {
            "quantization": (1.0, mean_squared_error(vectors, rows)),
            "commitment": (1.0, mean_squared_error(chosen.detach(), rows)),
            "codebook": (self.options.beta, mean_squared_error(chosen, rows.detach())),
        }
        return QuantizedRows(vectors=vectors, codes=codes, losses=losses | self.entropy_losses(rows, embeddings))

    def affinity(self, rows: Tensor, embeddings: Tensor) -> Tensor:
        return super().affinity(rows, embeddings) if self.options.metric == "euclidean" else rows @ embeddings.t()

    @torch.no_grad()
    def encode_rows(self, rows: Tensor) -> Tensor:
        if self.options.metric == "dot":
            return most_similar_codes(rows, self.embeddings())
        return super().encode_rows(rows)
