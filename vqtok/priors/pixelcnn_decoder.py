"""A PixelCNN one code after another, for sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from vqtok.priors.pixelcnn import PixelCNN

__all__ = ["PixelCNNDecoder"]


class PixelCNNDecoder:
    """One code after another, each layer keeping the few rows and columns of its input that the next step looks at.

    The codes of one position are read by the head alone, from the features of the position, which are kept too.
    """

    def __init__(self, prior: PixelCNN, classes: Tensor) -> None:
        self.prior, self.classes = prior, classes
        self.height, self.width = prior.binding.grid
        self.index = 0  # of the position
        channels, reach = prior.config.arch["hidden_size"], prior.config.arch["kernel_size"] // 2
        rows = prior.position.new_zeros(len(classes), channels, reach, self.width + 2 * reach)
        self.rows_above = [rows] * len(prior.layers)
        self.row = prior.position.new_zeros(len(classes), channels, 1, self.width)  # embeddings of the last whole row
        self.embedded: list[Tensor] = []  # embeddings of the positions so far in this row
        self.from_above: list[Tensor] = []
        self.columns_left: list[Tensor] = []
        self.features = self.row[..., :1]  # of the position
        self.here: list[Tensor] = []  # codes of the position

    def step(self, previous: Tensor | None) -> Tensor:
        """Logits (B, K) of the next code, given the codes (B,) before it; None at the first."""
        if previous is not None:
            self.here.append(previous)
        if len(self.here) == self.prior.binding.num_codebooks:
            self.embedded.append(self.prior.embed(torch.stack(self.here, dim=1))[:, :, None, None])
            self.index, self.here = self.index + 1, []
        if not self.here:
            self.features = self._features(*divmod(self.index, self.width))
        return self.prior.next_logits(self.features, self.here)

    def select(self, rows: Tensor) -> None:
        """Go on with some of the B, in the order of `rows`, int64 (B',), in which one may come several times."""
        self.classes, self.row, self.features = self.classes[rows], self.row[rows], self.features[rows]
        for kept in (self.rows_above, self.embedded, self.from_above, self.columns_left, self.here):
            kept[:] = [each[rows] for each in kept]

    def _features(self, y: int, x: int) -> Tensor:
        """What the stacks know of a position (B, C, 1, 1) from those before it."""
        if x == 0:
            self._start_row(y)
        # The code left of the first column is none: the stack is shifted right and starts from zeros.
        left = self.embedded[-1] if x else torch.zeros_like(self.row[..., :1])
        left = left + self.prior.position[:, :, y : y + 1, x : x + 1]
        for number, layer in enumerate(self.prior.layers):
            columns = torch.cat([self.columns_left[number], left], dim=3)
            self.columns_left[number] = columns[..., 1:]
            left = layer.look_left(columns, self.from_above[number][..., x : x + 1], self.classes)
        return left

    def _start_row(self, y: int) -> None:
        if self.embedded:
            self.row, self.embedded = torch.cat(self.embedded, dim=3), []
        reach = self.prior.config.arch["kernel_size"] // 2
        up = self.row + self.prior.position[:, :, y : y + 1]
        self.from_above = []
        for number, layer in enumerate(self.prior.layers):
            rows = torch.cat([self.rows_above[number], F.pad(up, (reach, reach))], dim=2)
            self.rows_above[number] = rows[:, :, 1:]
            up, from_above = layer.look_up(rows, self.classes)
            self.from_above.append(from_above)
        edge = self.row.new_zeros(len(self.classes), self.row.shape[1], 1, reach)
        self.columns_left = [edge] * len(self.prior.layers)
