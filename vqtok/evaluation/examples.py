"""What a code stands for: the patches of pictures whose latents lie nearest to it, and what is painted for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vqtok.data import Pictures
from vqtok.tokenizer import VQTokenizer

__all__ = ["BestPlaces", "CodeExamples", "cut_patch", "paint_code", "spread_codes"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class CodeExamples:
    """Patches of one code.

    Attributes:
        codebook, code: which.
        share: of all positions of the pictures that were looked at.
        patches: uint8 (n, C + 1, 3f, 3f): n pictures' pixels of a place, f a side, and of the places around it, nearest
            latent first; n is less than wanted where fewer pictures have the code. The last channel is 255, and 0
            beyond the edge of the picture.
        painted: uint8 (C + 1, 3f, 3f), the middle of a picture that has this code everywhere.
    """

    codebook: int
    code: int
    share: float
    patches: npt.NDArray[np.uint8]
    painted: npt.NDArray[np.uint8]


class BestPlaces:
    """For every code the places with the smallest distortion so far, each in another picture.

    Memory grows with the number of codes and not with that of pictures.

    Args:
        wanted: places kept of each code.
    """

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.codes = np.empty(0, dtype=np.int64)
        self.distortion = np.empty(0, dtype=np.float32)
        self.pictures = np.empty(0, dtype=np.int64)
        self.places = np.empty(0, dtype=np.int64)

    def add(self, codes: Array, distortion: Array, *, first: int) -> None:
        """Look at a batch of codes (B, h, w) and distortions (B, h, w), whose pictures are numbered from `first`."""
        batch, places = len(codes), codes[0].size
        self.codes = np.concatenate([self.codes, codes.ravel()])
        self.distortion = np.concatenate([self.distortion, distortion.ravel()])
        self.pictures = np.concatenate([self.pictures, np.repeat(np.arange(first, first + batch), places)])
        self.places = np.concatenate([self.places, np.tile(np.arange(places), batch)])
        self.keep(np.flatnonzero(self.codes >= 0))
        self.keep(np.lexsort((self.distortion, self.pictures, self.codes)))
        self.keep(np.flatnonzero(is_first(self.codes) | is_first(self.pictures)))  # the best place of each picture
        self.keep(np.lexsort((self.distortion, self.codes)))
        begins = np.flatnonzero(is_first(self.codes))
        rank = np.arange(len(self.codes)) - np.repeat(begins, np.diff(np.append(begins, len(self.codes))))
        self.keep(np.flatnonzero(rank < self.wanted))

    def keep(self, index: Array) -> None:
        self.codes, self.distortion = self.codes[index], self.distortion[index]
        self.pictures, self.places = self.pictures[index], self.places[index]

    def of(self, code: int) -> list[tuple[int, int]]:
        """Numbers of picture and place, place counted row by row, of the best places of a code, best first."""
        index = np.flatnonzero(self.codes == code)
        return list(zip(self.pictures[index].tolist(), self.places[index].tolist(), strict=True))

    def patches(self, code: int, pictures: Pictures, tokenizer: VQTokenizer) -> npt.NDArray[np.uint8]:
        """The patches of the best places of a code, uint8 (n, C + 1, 3f, 3f)."""
        found = self.of(code)
        factor = tokenizer.config.downsample_factor
        pixels = pictures.__getitems__([picture for picture, _ in found])["pixels"].numpy()
        columns = tokenizer.grid[1]
        return np.stack(
            [cut_patch(one, divmod(place, columns), factor) for one, (_, place) in zip(pixels, found, strict=True)]
        )


def is_first(values: Array) -> npt.NDArray[np.bool_]:
    """Whether each entry differs from the one before it; the first one does."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]


def spread_codes(counts: Array, wanted: int) -> Sequence[int]:
    """Codes in use from the most used to the least used, evenly by rank: at most `wanted` of counts (K,)."""
    ranked = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    if not len(ranked):
        return []
    places = np.unique(np.linspace(0, len(ranked) - 1, min(wanted, len(ranked))).round().astype(int))
    return [int(code) for code in ranked[places]]


def cut_patch(pixels: Array, place: tuple[int, int], factor: int) -> npt.NDArray[np.uint8]:
    """The pixels of a place, `factor` a side, and of those around it: (C, H, W) -> (C + 1, 3 factor, 3 factor).

    The last channel is 255 inside the picture and 0 beyond its edge.
    """
    opaque = np.concatenate([pixels, np.full_like(pixels[:1], 255)])
    padded = np.pad(opaque, ((0, 0), (factor, factor), (factor, factor)))
    top, left = place[0] * factor, place[1] * factor
    return padded[:, top : top + 3 * factor, left : left + 3 * factor]


@torch.no_grad()
def paint_code(tokenizer: VQTokenizer, codebook: int, code: int) -> npt.NDArray[np.uint8]:
    """The middle of what the decoder paints where every place has one code, and other codebooks have none."""
    height, width = tokenizer.grid
    codes = torch.full((1, height, width), code, device=tokenizer.device)
    if tokenizer.num_codebooks > 1:
        alone = torch.full((1, height, width, tokenizer.num_codebooks), -1, device=tokenizer.device)
        alone[..., codebook] = codes
        codes = alone
    vectors = tokenizer.quantizer.decode(codes).to(tokenizer.dtype)
    pixels = (tokenizer.decoder(vectors)[0].float().clamp(-1, 1) + 1) * 127.5
    painted = pixels.round().to(torch.uint8).cpu().numpy()
    return cut_patch(painted, (height // 2, width // 2), tokenizer.config.downsample_factor)
