"""Whether a codebook is healthy: how often its codes are used and where, how far apart they lie, what they stand for.

A healthy codebook uses nearly all of its codes, none of them for most of the images; has no two codes on one spot;
and uses many codes at every position of the grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vqtok.data import Batch, ImageSource, to_pixels
from vqtok.evaluation.codebook import CodeUse, top_share
from vqtok.evaluation.distances import CodeDistances, code_distances, code_vectors
from vqtok.evaluation.examples import BestPositions, CodeExamples, decode_code, spread_codes
from vqtok.evaluation.positions import PositionCounts
from vqtok.evaluation.reconstruction import first_batches, images_for, portable
from vqtok.tokenizer import VQTokenizer

__all__ = ["CodebookHealth", "measure_health"]

Array = npt.NDArray[Any]

SHOWN_CODEBOOKS = 4  # of several, the first ones get distances, maps of positions and examples
SHOWN_CODES = 12  # with examples, over all shown codebooks
PATCHES = 8  # of each


@dataclass(frozen=True, kw_only=True)
class CodebookHealth:
    """What was found on the images of one split.

    Attributes:
        about: dataset, split, number of images, tokenizer and grid, as JSON types.
        counts: int64 (Q, K), how often each code of each codebook was used.
        position_perplexity, codes_at_position: (q, h, w) of the first q codebooks: the perplexity of the codes at each
            position of the grid, and how many there are.
        block: positions a side that were counted as one, which h and w are then divided by, to hold memory; 1 unless
            grid and codebook are very large.
        distances: of the first q codebooks.
        examples: codes of the first q codebooks, from the most used to the least used.
    """

    about: Mapping[str, Any]
    counts: npt.NDArray[np.int64]
    position_perplexity: npt.NDArray[np.float64]
    codes_at_position: npt.NDArray[np.int64]
    block: int
    distances: tuple[CodeDistances, ...]
    examples: tuple[CodeExamples, ...]

    def numbers(self) -> dict[str, float | int]:
        """The whole in a few numbers; means are over the codebooks, distances over the first ones."""
        use = CodeUse.from_counts(self.counts)
        nearest = [distances.nearest.mean() for distances in self.distances]
        apart = [distances.pairs[~np.eye(len(distances.pairs), dtype=bool)].mean() for distances in self.distances]
        return {
            "perplexity": use.perplexity,
            "codes_in_use": use.codes_in_use,
            "dead_codes": int(self.counts.size - use.codes_in_use),
            "usage": use.codes_in_use / self.counts.size,
            "share_of_top_percent": top_share(self.counts),
            "mean_nearest_distance": float(np.mean(nearest)),
            "mean_distance": float(np.mean(apart)),
        }


def measure_health(
    tokenizer: VQTokenizer, source: ImageSource, *, num_images: int | None = None, batch_size: int = 128
) -> CodebookHealth:
    """Encode the first images of a split once and look at the codes; memory does not grow with their number.

    Args:
        tokenizer: on the device to compute on.
        source: the split.
        num_images: its first so many images; None takes all.
        batch_size: images at once.

    Raises:
        ConfigurationError: num_images or batch_size below 1.
        DataError: none of the images can be read.
    """
    images, total = images_for(tokenizer, source, num_images=num_images, batch_size=batch_size)
    shown = range(min(tokenizer.num_codebooks, SHOWN_CODEBOOKS))
    by_place = PositionCounts(
        num_codebooks=tokenizer.num_codebooks, codebook_size=tokenizer.codebook_size, grid=tokenizer.grid
    )
    best = [BestPositions(PATCHES) for _ in shown]
    tokenizer.eval()
    measured = 0
    for rows, codes, distortion in encoded(tokenizer, first_batches(images, total, batch_size)):
        measured += len(rows)
        by_place.add(codes)
        for codebook in shown:
            best[codebook].add(codes[..., codebook], distortion, images=rows)
    counts = by_place.totals()
    perplexity, codes_at_position = zip(*(by_place.by_place(codebook) for codebook in shown), strict=True)
    examples = [
        CodeExamples(
            codebook=codebook,
            code=code,
            share=float(counts[codebook, code] / counts[codebook].sum()),
            patches=best[codebook].patches(code, images, tokenizer),
            decoded=decode_code(tokenizer, codebook, code),
        )
        for codebook in shown
        for code in spread_codes(counts[codebook], max(3, SHOWN_CODES // len(shown)))
    ]
    return CodebookHealth(
        about=describe_source(tokenizer, source, measured),
        counts=counts,
        position_perplexity=np.stack(perplexity),
        codes_at_position=np.stack(codes_at_position),
        block=by_place.block,
        distances=tuple(
            code_distances(code_vectors(tokenizer.quantizer, codebook, device=tokenizer.device)) for codebook in shown
        ),
        examples=tuple(examples),
    )


@torch.no_grad()
def encoded(tokenizer: VQTokenizer, batches: Iterator[Batch]) -> Iterator[tuple[Array, Array, Array]]:
    """Of each batch: the rows of its images (B,), codes (B, h, w, Q) and distortion (B, h, w)."""
    for batch in batches:
        latents = tokenizer.encoder(tokenizer.checked(to_pixels(batch["pixels"].to(tokenizer.device))))
        codes = tokenizer.quantizer.encode(latents)
        distortion = tokenizer.quantizer.distortion(latents)
        yield (
            batch["index"].numpy(),
            codes.reshape(*distortion.shape, -1).cpu().numpy(),
            distortion.float().cpu().numpy(),
        )


def describe_source(tokenizer: VQTokenizer, source: ImageSource, num_images: int) -> dict[str, Any]:
    """What was looked at, in names that mean something on other machines too."""
    return {
        "dataset": portable(source.name),
        "split": source.split,
        "num_images": num_images,
        "tokenizer": portable(tokenizer.repository, parts=2),
        "fingerprint": tokenizer.fingerprint,
        "grid": list(tokenizer.grid),
        "num_codebooks": tokenizer.num_codebooks,
        "codebook_size": tokenizer.codebook_size,
    }
