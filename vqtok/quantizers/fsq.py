"""Finite scalar quantization: round each latent dimension to a few levels; the grid of levels is the codebook.

Mentzer et al. 2023, arXiv:2309.15505, section 3.1 and appendix A.1. A dimension with L levels is bounded and rounded,

    b(z) = tanh(z + s) h - o        h = (1 - m) (L - 1) / 2        quantized = round(b(z)) / floor(L / 2)

where an even L takes o = 1/2 and s = artanh(o / h), so that there are L integers within the bounds and b(0) = 0, and
an odd L takes o = s = 0. The gradient passes the rounding as it is (straight-through) and b as it should.

The listing in the appendix has tan where artanh was meant, as its author says (issue 94 of
lucidrains/vector-quantize-pytorch); the two are within 0.001 of each other at L = 8. At L = 2 no shift takes b(0) to 0,
the upper end of its levels: here s is 0 there, and the two levels meet at z = 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from vqtok.options import Allowed
from vqtok.quantizers.base import Quantizer, QuantizerOptions, QuantizerOutput
from vqtok.quantizers.gradients import straight_through

__all__ = ["FSQOptions", "FiniteScalarQuantizer"]

MARGIN = 1e-3
MOST_LEVELS = 1000  # beyond, a margin of 0.001 is wider than half a level: the outermost are not reached, or passed


def product_fits(levels: list[int]) -> list[int]:
    """The levels, refused where int64 cannot number their codes."""
    if math.prod(levels) > 2**62:
        raise ValueError("their product must be at most 2^62")
    return levels


class FSQOptions(QuantizerOptions):
    """Options of `fsq`.

    The paper's choices (appendix A.4.1): [8, 6, 5] for 2^8 codes, [8, 8, 8] for 2^9, [8, 5, 5, 5] for 2^10,
    [7, 5, 5, 5, 5] for 2^12, [8, 8, 8, 6, 5] for 2^14, [8, 8, 8, 5, 5, 5] for 2^16.
    """

    type: Literal["fsq"] = "fsq"
    levels: Annotated[
        list[Annotated[int, Field(ge=2, le=MOST_LEVELS)]],
        AfterValidator(product_fits),
        Allowed(f"a list of whole numbers from 2 to {MOST_LEVELS}, one for each dimension, such as [8, 8, 8]"),
    ] = Field([8, 8, 8], min_length=1, description="levels of each dimension; their product is the number of codes")
    margin: float = Field(
        MARGIN,
        ge=-MARGIN,
        le=MARGIN,
        description="share by which tanh stays within the outermost levels, m; -0.001, past them, is what Cosmos "
        "Tokenizer has",
    )


class FiniteScalarQuantizer(Quantizer):
    """Codes without a codebook to learn, so none can die; nothing to save and no loss.

    Shapes: latents (B, D, h, w) with D = len(levels); quantized in [-1, 1]; codes (B, h, w) in [0, K), the level of the
    first dimension changing fastest.
    """

    paper = "Mentzer et al. 2023, arXiv:2309.15505"

    Options = FSQOptions
    options: FSQOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.levels = self.code_levels = self.options.levels
        self.code_dim = len(self.levels)
        self.codebook_size = math.prod(self.levels)

    def reset_parameters(self) -> None:
        """There are none."""

    @torch.no_grad()
    def encode(self, latents: Tensor) -> Tensor:
        return self.codes_of(self.round(self.bound(latents.float())))

    def decode(self, codes: Tensor) -> Tensor:
        sizes, steps = self.per_channel(self.levels, codes), self.per_channel(self.steps, codes)
        return self.value_of(codes.unsqueeze(1) // steps % sizes)

    @torch.no_grad()
    def distortion(self, latents: Tensor) -> Tensor:
        """Squared distance of the bounded latents to their codes, both in [-1, 1]: float32 (B, h, w)."""
        bounded = self.bound(latents.float())
        return (self.scaled(bounded) - self.value_of(self.round(bounded))).square().sum(dim=1)

    def forward(self, latents: Tensor) -> QuantizerOutput:
        with torch.autocast(latents.device.type, enabled=False):
            bounded = self.bound(latents.float())
            levels = self.round(bounded.detach())
            quantized = straight_through(self.scaled(bounded), self.value_of(levels))
        return QuantizerOutput(
            quantized=quantized, codes=self.codes_of(levels), loss=quantized.new_zeros(()), metrics={}
        )

    def bound(self, latents: Tensor) -> Tensor:
        """b(z): within (-L/2, L/2 - 1) for even L, within (-(L - 1)/2, (L - 1)/2) for odd."""
        halves = [(1 - self.options.margin) * (level - 1) / 2 for level in self.levels]
        offsets = [0.0 if level % 2 else 0.5 for level in self.levels]
        shifts = [
            math.atanh(offset / half) if offset < half else 0.0 for half, offset in zip(halves, offsets, strict=True)
        ]
        half, offset, shift = (self.per_channel(values, latents) for values in (halves, offsets, shifts))
        return torch.tanh(latents + shift) * half - offset

    def round(self, bounded: Tensor) -> Tensor:
        """Number of the nearest level, counted from the lowest: whole numbers from 0 to L - 1, or nan, float32."""
        return bounded.round() + self.per_channel(self.middles, bounded)

    def scaled(self, bounded: Tensor) -> Tensor:
        """b(z) -> where the codes are."""
        return bounded / self.per_channel(self.middles, bounded)

    def value_of(self, levels: Tensor) -> Tensor:
        """Numbers of levels (B, D, h, w) -> quantized in [-1, 1]: the same from floats and integers to the last bit."""
        middles = self.per_channel(self.middles, levels)
        return (levels - middles).float() / middles.float()

    def codes_of(self, levels: Tensor) -> Tensor:
        """Numbers of levels (B, D, h, w) -> codes (B, h, w): sum_d level_d prod_(i < d) L_i."""
        codes = (levels.long() * self.per_channel(self.steps, levels.long())).sum(dim=1)
        return codes.clamp(0, self.codebook_size - 1)  # for latents that are not numbers

    @property
    def middles(self) -> list[int]:
        """floor(L / 2) of each dimension: the number of the level that is 0."""
        return [level // 2 for level in self.levels]

    @property
    def steps(self) -> list[int]:
        """How far apart the codes of neighbouring levels are, by dimension."""
        return [math.prod(self.levels[:dimension]) for dimension in range(self.code_dim)]

    def per_channel(self, values: Sequence[float], like: Tensor) -> Tensor:
        """One number for each dimension, (1, D, 1, 1), of the type of a tensor and on its device.

        Made anew each time: a tensor kept on the module would be lost where transformers builds on the meta device.
        A copy of so few numbers that nobody waits for does not stall an accelerator.
        """
        return torch.tensor(values, dtype=like.dtype).view(1, -1, 1, 1).to(like.device, non_blocking=True)
