"""The head of a PixelCNN for several codes a position: each given those before it at the same position.

    p(c_1 ... c_Q | features) = prod_q softmax(W_q f(features + p_q + E_1[c_1] + ... + E_(q-1)[c_(q-1)]))

with f a residual network of layers that all codebooks share, p_q what tells it the codebook, and W_q and E_q each
codebook's own. Lee et al. 2022, arXiv:2203.01941, section 3.2.2, put a second transformer here; the sum keeps the same
factorisation, costs the same at every step of sampling, and in training is one cumulative sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["CodeLogits", "DepthHead", "DepthLayer"]


class CodeLogits(nn.Linear):
    """Logits of the codes of one codebook."""


class DepthLayer(nn.Module):
    """A residual layer, (..., C) -> (..., C)."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.wide = nn.Linear(channels, 4 * channels)
        self.narrow = nn.Linear(4 * channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        residual: Tensor = self.narrow(self.dropout(torch.relu(self.wide(self.norm(features)))))
        return features + residual


class DepthHead(nn.Module):
    """Logits of the Q codes of a position in turn.

    Args:
        channels: C, of the features of a position.
        codebook_size: K.
        num_codebooks: Q, at least 2.
        num_layers: of the residual network.
        dropout: share of its hidden units dropped in training.
    """

    layers: list[DepthLayer]

    def __init__(self, channels: int, codebook_size: int, num_codebooks: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.codebook_size, self.num_codebooks = codebook_size, num_codebooks
        self.embedding = nn.Embedding((num_codebooks - 1) * codebook_size, channels)  # nothing follows the last
        self.position = nn.Parameter(torch.zeros(num_codebooks, channels))
        self.layers = nn.ModuleList(  # type: ignore[assignment]  # a list to its readers
            DepthLayer(channels, dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(channels)
        self.outputs = nn.ModuleList(CodeLogits(channels, codebook_size) for _ in range(num_codebooks))

    def forward(self, features: Tensor, codes: Tensor) -> Tensor:
        """All Q at once: features (N, C) and codes int64 (N, Q), the last of which is not looked at -> (N, Q, K)."""
        before = self.embedding(codes[:, :-1] + self.offsets(codes)).cumsum(dim=1)
        hidden = features[:, None] + self.position + torch.cat([torch.zeros_like(before[:, :1]), before], dim=1)
        for layer in self.layers:
            hidden = layer(hidden)
        by_codebook = self.norm(hidden).unbind(dim=1)
        return torch.stack([output(each) for output, each in zip(self.outputs, by_codebook, strict=True)], dim=1)

    def step(self, features: Tensor, before: Sequence[Tensor]) -> Tensor:
        """The next one: features (N, C) and the codes before it at this position, each int64 (N,) -> (N, K)."""
        number = len(before)
        hidden = features + self.position[number]
        for codebook, codes in enumerate(before):
            hidden = hidden + self.embedding(codes + codebook * self.codebook_size)
        for layer in self.layers:
            hidden = layer(hidden)
        logits: Tensor = self.outputs[number](self.norm(hidden))
        return logits

    def offsets(self, codes: Tensor) -> Tensor:
        """Where the embeddings of each codebook but the last begin: (Q - 1,)."""
        return torch.arange(self.num_codebooks - 1, device=codes.device) * self.codebook_size
