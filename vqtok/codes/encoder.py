"""The encoder of a tokenizer as tokenizing runs it: batches of uint8 pixels in, grids of codes out."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from vqtok.codes.spec import CodesSpec
from vqtok.data import to_pixels

if TYPE_CHECKING:
    from vqtok.tokenizer import VQTokenizer

__all__ = ["Encoder"]

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Encoder:
    """Encodes batches on the device where the tokenizer is.

    Args:
        tokenizer: its weights are not changed.
        precision: float32, or bfloat16 or float16 by autocast; the quantizer always computes in float32.
    """

    def __init__(self, tokenizer: VQTokenizer, precision: str = "float32") -> None:
        self.tokenizer, self.dtype = tokenizer, PRECISIONS[precision]
        self.spec = CodesSpec.from_tokenizer(tokenizer)
        self.device = tokenizer.device

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Codes of images.

        Args:
            pixels: uint8 (B, C, H, W) of the tokenizer's own size.

        Returns:
            uint16 or wider, (B, h, w), or (B, h, w, Q) where Q > 1.
        """
        # Scaled on the CPU as the image processor does: a GPU divides by a constant with another last bit.
        scaled = to_pixels(torch.from_numpy(pixels)).to(self.device)
        with torch.inference_mode(), self._autocast():
            codes = self.tokenizer.encode(scaled)
        return codes.cpu().numpy().astype(self.spec.dtype)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)
