"""The parts that encoders and decoders are made of."""

from __future__ import annotations

import math

from torch import Tensor, nn

__all__ = ["ResidualBlock", "ResidualStack", "init_convolution"]


def init_convolution(convolution: nn.Conv2d | nn.ConvTranspose2d, gain: float) -> None:
    """Normal weights with standard deviation gain / sqrt(inputs that one output sums), zero bias.

    A transposed convolution with kernel k and stride s sums k*k / s*s of its kernel's positions for each output.
    """
    kernel = math.prod(convolution.kernel_size)
    if isinstance(convolution, nn.ConvTranspose2d):
        kernel //= math.prod(convolution.stride)
    nn.init.normal_(convolution.weight, std=gain / math.sqrt(convolution.in_channels * kernel))
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


class ResidualBlock(nn.Module):
    """x + (ReLU, 3x3 convolution, ReLU, 1x1 convolution): van den Oord et al. 2017, section 4.1."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(channels, hidden, kernel_size=3, padding=1)
        self.pointwise = nn.Conv2d(hidden, channels, kernel_size=1)

    def reset_parameters(self) -> None:
        init_convolution(self.spatial, gain=math.sqrt(2))
        init_convolution(self.pointwise, gain=0.0)  # the block starts as the identity

    def forward(self, features: Tensor) -> Tensor:
        branch: Tensor = self.pointwise(self.spatial(features.relu()).relu_())
        return branch.add_(features)  # no gradient needs what a convolution gave, so its memory is taken


class ResidualStack(nn.Sequential):
    """Residual blocks and a closing ReLU; (B, channels, h, w) -> the same shape."""

    def __init__(self, channels: int, hidden: int, blocks: int) -> None:
        super().__init__(*(ResidualBlock(channels, hidden) for _ in range(blocks)), nn.ReLU(inplace=True))
