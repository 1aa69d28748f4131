"""How much of its codes a quantizer uses: each code is counted, or each dimension of codes that are too many to count.

A codebook of 2^36 codes would need 512 GiB of counters, and no dataset could fill them. So large a codebook is never a
table of learned vectors: its codes are put together from D dimensions of a few values each, such as bits. Beyond
`COUNTABLE` codes the values of each dimension are counted instead, which takes D x L counters. With H_d the entropy of
dimension d in bits,

    H(code) <= H_1 + ... + H_D <= log2 K

so their sum says how many of the log2 K bits of a code are in use at most. That a value occurs says little: a codebook
in which two opposite codes are left shows both values of every bit. Nor does an even use of all bits prove that all
combinations occur, which is why the numbers have names of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vqtok.quantizers.base import Quantizer, entropy, perplexity

__all__ = ["COUNTABLE", "CodeCounting", "CodeUse", "DimensionUse", "even_use", "too_few_in_use"]

# A window over training holds sixteen times as many counters of 8 bytes: 32 MiB. A dataset of 60,000 images of 64
# positions holds fifteen times as many codes, so that codes which are never used show.
COUNTABLE = 2**18


@dataclass(frozen=True, kw_only=True)
class CodeUse:
    """What counts of codes say.

    Attributes:
        perplexity: exp of the entropy of the shares, in nats: K where all codes are used alike, 1 where one is. With
            several codebooks the mean over them.
        codes_in_use: codes that occur at least once, over all codebooks.
        num_codes: codes of all codebooks.
        attainable: the share of codes in use that is expected of as many even draws, 1 - exp(-n / K): below 1 where K
            is large.
    """

    perplexity: float
    codes_in_use: int
    num_codes: int
    attainable: float

    @classmethod
    def from_counts(cls, counts: Iterable[Tensor], codebook_size: int) -> CodeUse:
        """Sum up how often codes of each codebook occurred: int64 (K,) each, or fewer without those that did not."""
        found = list(counts)
        drawn = torch.stack([each.sum().double() for each in found])
        return cls(
            perplexity=float(torch.stack([perplexity(each.double()) for each in found]).mean()),
            codes_in_use=sum(int((each > 0).sum()) for each in found),
            num_codes=len(found) * codebook_size,
            attainable=float(-torch.expm1(-drawn / codebook_size).mean()),
        )

    @property
    def dead_codes(self) -> int:
        return self.num_codes - self.codes_in_use

    @property
    def usage(self) -> float:
        """The share of codes in use."""
        return self.codes_in_use / self.num_codes

    def metrics(self) -> dict[str, float]:
        return {"perplexity": self.perplexity, "usage": self.usage, "dead_codes": self.dead_codes}

    def summary(self, images: str) -> str:
        """In a few words, with the name of the images, such as held-out."""
        return f"perplexity {self.perplexity:.0f}, codes in use ({images}) {self.usage:.0%}"

    def __str__(self) -> str:
        return f"{self.codes_in_use:,} of {self.num_codes:,} codes in use ({self.usage:.1%})"


@dataclass(frozen=True, kw_only=True)
class DimensionUse:
    """What counts of the values of each dimension say.

    Attributes:
        bits_in_use: the sum of the entropies of all dimensions, in bits, over all codebooks. The codes of a position
            carry no more.
        num_bits: what it is where all values of every dimension are used alike, Q log2 K.
        constant_dimensions: dimensions with the same value everywhere.
        num_dimensions: of all codebooks.
        attainable: the share of the bits that as few positions as there were can show, below 1 for fewer than values.
    """

    bits_in_use: float
    num_bits: float
    constant_dimensions: int
    num_dimensions: int
    attainable: float

    @classmethod
    def from_counts(cls, counts: Iterable[Tensor]) -> DimensionUse:
        """Sum up how often each value of each dimension occurred: int64 (L,) each."""
        found = list(counts)
        bits = [float(entropy(each.double() / each.sum().clamp(min=1))) / math.log(2) for each in found]
        largest = [math.log2(len(each)) for each in found]
        shown = [min(most, math.log2(max(1, int(each.sum())))) for most, each in zip(largest, found, strict=True)]
        return cls(
            bits_in_use=math.fsum(bits),
            num_bits=math.fsum(largest),
            constant_dimensions=sum(int((each > 0).sum()) <= 1 for each in found),
            num_dimensions=len(found),
            attainable=math.fsum(shown) / math.fsum(largest),
        )

    @property
    def usage(self) -> float:
        """The share of the bits in use."""
        return self.bits_in_use / self.num_bits

    def metrics(self) -> dict[str, float]:
        return {
            "bits_in_use": self.bits_in_use,
            "bit_usage": self.usage,
            "constant_dimensions": self.constant_dimensions,
        }

    def summary(self, images: str) -> str:
        """In a few words, with the name of the images, such as held-out."""
        return f"bits in use by dimension ({images}) {self.bits_in_use:.1f} of {self.num_bits:.1f}"

    def __str__(self) -> str:
        return (
            f"at most {self.bits_in_use:.1f} of {self.num_bits:.1f} bits in use ({self.usage:.1%}), "
            f"{self.constant_dimensions:,} of {self.num_dimensions:,} dimensions constant"
        )


def too_few_in_use(use: CodeUse | DimensionUse, share: float) -> bool:
    """Whether less than a share of the codes or bits is in use that even use would have shown."""
    return use.usage < share * use.attainable


def even_use(use: CodeUse | DimensionUse) -> str:
    """The end of a sentence on the use of codes where even use of as few could not show nearly all of them."""
    digits = 0 if use.attainable > 0.1 else 1
    return f", where even use would show {use.attainable:.{digits}%}" if use.attainable < 0.95 else ""


@dataclass(frozen=True, kw_only=True)
class CodeCounting:
    """What is counted of codes, and how.

    Attributes:
        num_codebooks, codebook_size: Q and K.
        levels: how many values each dimension of a code has, the one that changes fastest first; (K,) where each code
            is counted.

    Shapes: counts int64 (T, S), a row for each codebook, or for each dimension of each codebook, as long as the longest
    of them; codes (B, h, w), or (B, h, w, Q) where Q > 1, -1 for no code.
    """

    num_codebooks: int
    codebook_size: int
    levels: tuple[int, ...]

    @classmethod
    def of(cls, quantizer: Quantizer) -> CodeCounting:
        """Count each code, unless they are too many and have dimensions."""
        size = quantizer.codebook_size
        by_dimension = size > COUNTABLE and len(quantizer.code_levels) > 0
        levels = tuple(quantizer.code_levels) if by_dimension else (size,)
        return cls(num_codebooks=quantizer.num_codebooks, codebook_size=size, levels=levels)

    @property
    def by_dimension(self) -> bool:
        """Whether dimensions are counted rather than codes."""
        return self.levels != (self.codebook_size,)

    @property
    def shape(self) -> tuple[int, int]:
        """T and S."""
        return self.num_codebooks * len(self.levels), max(self.levels)

    def rows_of(self, codebook: int) -> slice:
        """Which rows of counts are those of a codebook."""
        return slice(codebook * len(self.levels), (codebook + 1) * len(self.levels))

    def split(self, codes: Tensor) -> Tensor:
        """Codes as what is counted of them, in the order of the rows of counts: (N, T), -1 where there is no code."""
        columns = codes.reshape(-1, self.num_codebooks)
        if not self.by_dimension:
            return columns
        steps = [math.prod(self.levels[:dimension]) for dimension in range(len(self.levels))]
        step, level = torch.tensor([steps, self.levels]).to(codes.device, non_blocking=True)
        return torch.where(columns[..., None] < 0, -1, columns[..., None] // step % level).flatten(1)

    def add(self, counts: Tensor, codes: Tensor) -> None:
        """Count codes in place without waiting for the device, which bincount would."""
        rows, size = counts.shape
        columns = self.split(codes)
        first = size * torch.arange(rows, device=counts.device)
        ones = (columns >= 0).flatten().to(counts.dtype)
        counts.view(-1).index_add_(0, (columns.clamp(min=0) + first).flatten(), ones)

    def use(self, counts: Tensor) -> CodeUse | DimensionUse:
        """What counts say, those of all codebooks or of some."""
        if not self.by_dimension:
            return CodeUse.from_counts(counts, self.codebook_size)
        return DimensionUse.from_counts(row[: self.levels[i % len(self.levels)]] for i, row in enumerate(counts))

    def note(self) -> str | None:
        """A line for the user where not every code is counted."""
        if not self.by_dimension:
            return None
        return f"counted by dimension, because {self.codebook_size:,} codes are too many to count"
