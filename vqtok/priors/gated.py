"""The gated layer of a PixelCNN. van den Oord et al. 2016, arXiv:1606.05328, equation 4 and figure 2."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ClassBias", "GatedLayer", "gate"]


class ClassBias(nn.Embedding):
    """A bias for each class; all classes start alike."""


class GatedLayer(nn.Module):
    """One layer of both stacks, on inputs that carry their causal padding already."""

    def __init__(self, channels: int, kernel_size: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.reach = kernel_size // 2
        self.vertical = nn.Conv2d(channels, 2 * channels, (self.reach + 1, kernel_size))
        self.horizontal = nn.Conv2d(channels, 2 * channels, (1, self.reach + 1))
        self.vertical_to_horizontal = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.residual = nn.Conv2d(channels, channels, 1)
        self.vertical_bias = ClassBias(classes, 2 * channels)
        self.horizontal_bias = ClassBias(classes, 2 * channels)
        self.dropout = nn.Dropout(dropout)

    def pad_above(self, rows: Tensor) -> Tensor:
        """Zeros for the rows above the grid and the columns beside it."""
        return F.pad(rows, (self.reach, self.reach, self.reach, 0))

    def pad_left(self, columns: Tensor) -> Tensor:
        """Zeros for the columns left of the grid."""
        return F.pad(columns, (self.reach, 0))

    def look_up(self, rows: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Vertical stack: (B, C, n + reach, w + 2 reach) -> gated (B, C, n, w) and what the horizontal stack gets."""
        features = self.vertical(rows) + self.vertical_bias(classes)[:, :, None, None]
        return self.dropout(gate(features)), self.vertical_to_horizontal(features)

    def look_left(self, columns: Tensor, from_above: Tensor, classes: Tensor) -> Tensor:
        """Horizontal stack: (B, C, n, m + reach) -> (B, C, n, m); `from_above` is (B, 2C, n, m)."""
        features = self.horizontal(columns) + from_above + self.horizontal_bias(classes)[:, :, None, None]
        residual: Tensor = self.residual(self.dropout(gate(features)))
        return columns[..., self.reach :] + residual


def gate(features: Tensor) -> Tensor:
    """Equation 4: the first half of the channels through tanh, times the second half through a sigmoid."""
    content, door = features.chunk(2, dim=1)
    return torch.tanh(content) * torch.sigmoid(door)
