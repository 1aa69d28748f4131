"""What a program gives for an image, and what it takes for a tokenizer to give the same."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vqtok.tokenizer import VQTokenizer

FEWEST = 24  # different codes among 64, without which equal ones would say little
OF_PIXELS = 1e-5 * 2  # of the range [-1, 1]


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a program gives.

    Attributes:
        pixels: an image (1, 3, H, W) in [-1, 1].
        codes: (1, h, w).
        unsure: codes whose two best distances differ by less than 1e-5 of the distance.
        decoded: of the codes of the first rows and columns; None where there is no decoder.
    """

    pixels: Tensor
    codes: Tensor
    unsure: Tensor
    decoded: Tensor | None


def image(side: int) -> Tensor:
    """Noise of several grains in [-1, 1], so that positions differ."""
    torch.manual_seed(0)
    grains = [interpolate(torch.rand(1, 3, side // step, side // step), scale_factor=step) for step in (32, 16, 8, 1)]
    return (torch.stack(grains).sum(dim=0) - 2).clamp(-1, 1)


@torch.no_grad()
def agree(tokenizer: VQTokenizer, known: Known) -> None:
    """All codes but those that rounding may choose, and pixels to 1e-5 of their range."""
    assert len(known.codes.unique()) >= FEWEST and known.unsure.float().mean() < 0.05
    codes = tokenizer.encode(known.pixels)
    different = (codes != known.codes) & ~known.unsure
    assert codes.shape == known.codes.shape and not different.any(), f"{int(different.sum())} of {codes.numel()} codes"
    if known.decoded is None:
        return
    height, width = (length // tokenizer.config.downsample_factor for length in known.decoded.shape[2:])
    assert (known.decoded.abs() < 1).float().mean() > 0.9, "too many pixels are cut off"
    decoded = tokenizer.decode(known.codes[:, :height, :width])
    torch.testing.assert_close(decoded, known.decoded.clamp(-1, 1), rtol=0, atol=OF_PIXELS)
