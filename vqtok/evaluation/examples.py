"""What a code stands for: the patches of images whose latents lie nearest to it, and what is decoded for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vqtok.data import ImageDataset
from vqtok.evaluation.distances import of_codebook
from vqtok.tokenizer import VQTokenizer

__all__ = ["BestPositions", "CodeExamples", "cut_patch", "decode_code", "spread_codes"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class CodeExamples:
    """Patches of one code.

    Attributes:
        codebook, code: which.
        share: of all positions of the images that were looked at.
        patches: uint8 (n, C + 1, 3f, 3f): n images' pixels of a position, f a side, and of the positions around it,
            nearest latent first; n is less than wanted where fewer images have the code. The last channel is 255, and 0
            beyond the edge of the image.
        decoded: uint8 (C + 1, 3f, 3f), the middle of an image that has this code everywhere.
    """

    codebook: int
    code: int
    share: float
    patches: npt.NDArray[np.uint8]
    decoded: npt.NDArray[np.uint8]


class BestPositions:
    """For every code the positions with the smallest distortion so far, each in another image.

    Memory grows with the number of codes and not with that of images.

    Args:
        wanted: positions kept of each code.
    """

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.codes = np.empty(0, dtype=np.int64)
        self.distortion = np.empty(0, dtype=np.float32)
        self.images = np.empty(0, dtype=np.int64)
        self.positions = np.empty(0, dtype=np.int64)

    def add(self, codes: Array, distortion: Array, *, images: Array) -> None:
        """Look at a batch of codes (B, h, w) and distortions (B, h, w); `images` (B,) are the rows of its images."""
        batch, positions = len(codes), codes[0].size
        self.codes = np.concatenate([self.codes, codes.ravel()])
        self.distortion = np.concatenate([self.distortion, distortion.ravel()])
        self.images = np.concatenate([self.images, np.repeat(images, positions)])
        self.positions = np.concatenate([self.positions, np.tile(np.arange(positions), batch)])
        self.keep(np.flatnonzero(self.codes >= 0))
        self.keep(np.lexsort((self.distortion, self.images, self.codes)))
        self.keep(np.flatnonzero(is_first(self.codes) | is_first(self.images)))  # the best position of each image
        self.keep(np.lexsort((self.distortion, self.codes)))
        begins = np.flatnonzero(is_first(self.codes))
        rank = np.arange(len(self.codes)) - np.repeat(begins, np.diff(np.append(begins, len(self.codes))))
        self.keep(np.flatnonzero(rank < self.wanted))

    def keep(self, index: Array) -> None:
        self.codes, self.distortion = self.codes[index], self.distortion[index]
        self.images, self.positions = self.images[index], self.positions[index]

    def of(self, code: int) -> list[tuple[int, int]]:
        """Numbers of image and position, position counted row by row, of the best positions of a code, best first."""
        index = np.flatnonzero(self.codes == code)
        return list(zip(self.images[index].tolist(), self.positions[index].tolist(), strict=True))

    def patches(self, code: int, images: ImageDataset, tokenizer: VQTokenizer) -> npt.NDArray[np.uint8]:
        """The patches of the best positions of a code, uint8 (n, C + 1, 3f, 3f)."""
        found = self.of(code)
        factor = tokenizer.config.downsample_factor
        pixels = images.__getitems__([image for image, _ in found])["pixels"].numpy()
        columns = tokenizer.grid[1]
        return np.stack(
            [
                cut_patch(one, divmod(position, columns), factor)
                for one, (_, position) in zip(pixels, found, strict=True)
            ]
        )


def is_first(values: Array) -> npt.NDArray[np.bool_]:
    """Whether each entry differs from the one before it; the first one does."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]


def spread_codes(counts: Array, wanted: int) -> Sequence[int]:
    """Codes in use from the most used to the least used, evenly by rank: at most `wanted` of counts (K,)."""
    ranked = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    if not len(ranked):
        return []
    positions = np.unique(np.linspace(0, len(ranked) - 1, min(wanted, len(ranked))).round().astype(int))
    return [int(code) for code in ranked[positions]]


def cut_patch(pixels: Array, position: tuple[int, int], factor: int) -> npt.NDArray[np.uint8]:
    """The pixels of a position, `factor` a side, and of those around it: (C, H, W) -> (C + 1, 3 factor, 3 factor).

    The last channel is 255 inside the image and 0 beyond its edge.
    """
    opaque = np.concatenate([pixels, np.full_like(pixels[:1], 255)])
    padded = np.pad(opaque, ((0, 0), (factor, factor), (factor, factor)))
    top, left = position[0] * factor, position[1] * factor
    return padded[:, top : top + 3 * factor, left : left + 3 * factor]


@torch.no_grad()
def decode_code(tokenizer: VQTokenizer, codebook: int, code: int) -> npt.NDArray[np.uint8]:
    """The middle of what the decoder decodes where every position has one code, and other codebooks have none."""
    height, width = tokenizer.grid
    codes = torch.full((1, height, width), code, device=tokenizer.device)
    alone = of_codebook(codes, codebook, tokenizer.num_codebooks)
    vectors = tokenizer.quantizer.decode(alone).to(tokenizer.dtype)
    pixels = (tokenizer.likelihood.mean(tokenizer.decoder(vectors))[0].float().clamp(-1, 1) + 1) * 127.5
    decoded = pixels.round().to(torch.uint8).cpu().numpy()
    return cut_patch(decoded, (height // 2, width // 2), tokenizer.config.downsample_factor)
