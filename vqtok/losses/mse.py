"""The mean squared error, which is no likelihood: a decoder that it trains gives pixels, and no distribution."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import mse_loss

from vqtok.losses.base import LikelihoodOptions, Reconstruction

__all__ = ["MSEOptions", "MeanSquaredError"]


class MSEOptions(LikelihoodOptions):
    """Options of `mse`."""

    type: Literal["mse"] = "mse"


class MeanSquaredError(Reconstruction):
    """The mean over all elements of the squared error of pixels in [-1, 1]."""

    @property
    def num_parameters(self) -> int:
        return self.num_channels

    def loss(self, parameters: Tensor, pixels: Tensor) -> Tensor:
        return mse_loss(parameters.float(), pixels.float())

    def mean(self, parameters: Tensor) -> Tensor:
        return parameters
