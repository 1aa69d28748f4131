"""The encoder of a tokenizer as tokenizing runs it: batches of uint8 pixels in, grids of codes out.

Batches are decoded and encoded side by side, each by one thread on one core. Cores that share a batch wait for each
other after every layer, and for the one that decodes; `scripts/bench_tokenize.py` has figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vqtok.codes.spec import CodesSpec
from vqtok.data import to_pixels
from vqtok.quantizers.lookup import float32_products

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
        # One batch at a time takes memory on an accelerator; while one is encoded, others are decoded and copied.
        self._turn = nullcontext() if self.device.type == "cpu" else Lock()
        self._levels = to_pixels(torch.arange(256, dtype=torch.uint8)).to(self.device)

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Codes of images; several threads may call it at once.

        Args:
            pixels: uint8 (B, C, H, W) of the tokenizer's own size.

        Returns:
            uint16 or wider, (B, h, w), or (B, h, w, Q) where Q > 1.
        """
        images = self.scaled(torch.from_numpy(pixels))
        with self._turn, torch.inference_mode(), self._autocast():
            codes = self.tokenizer.encode(images)
        return codes.cpu().numpy().astype(self.spec.dtype)

    def scaled(self, pixels: Tensor) -> Tensor:
        """uint8 (B, C, H, W) in memory as pixel values on the device, to the last bit those of the image processor.

        Bytes travel to an accelerator, and are looked up there: it divides by a constant with another last bit.
        """
        if self.device.type == "cpu":
            return to_pixels(pixels)
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()
        return self._levels[pixels.to(self.device, non_blocking=True).int()]

    @contextmanager
    def side_by_side(self) -> Iterator[tuple[ThreadPoolExecutor, int]]:
        """Threads for batches that compute on one core each, and how many: as many as torch uses for one batch."""
        threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        try:
            with float32_products(self.device):  # for all at once: it is a switch of the whole process
                yield pool, threads
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # who ends early waits for no batch that is under way
            torch.set_num_threads(threads)  # what a thread says of itself holds for those that begin later

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)
