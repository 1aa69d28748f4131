"""Whether a codebook is healthy: how often its codes are used and where, how far apart they lie, what they stand for.

A healthy codebook uses nearly all of its codes, none of them for most of the images; has no two codes on one spot;
and uses many codes at every position of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vqtok.data import Batch, ImageSource, to_pixels
from vqtok.evaluation.codebook import CodeSample, top_share
from vqtok.evaluation.distances import CodeDistances, code_distances, code_vectors
from vqtok.evaluation.examples import BestPositions, CodeExamples, decode_code, spread_codes
from vqtok.evaluation.positions import PositionCounts
from vqtok.evaluation.reconstruction import batches_of, check_measures, images_for
from vqtok.hub import portable
from vqtok.quantizers import CodeCounting, CodeUse, DimensionUse
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
        counting: what was counted.
        counts: int64 (T, S), how often each code of each codebook was used, or each value of each dimension.
        maps: (q, h, w) of the first q codebooks: the perplexity of the codes at each position of the grid and how many
            there are, or bits in use and dimensions that vary, by name.
        block: positions a side that were counted as one, which h and w are then divided by, to hold memory; 1 unless
            grid and codebook are very large.
        distances: of the first q codebooks. Where dimensions are counted, those between codes of a sample, the ones
            that the first images have.
        examples: codes of the first q codebooks, or of the samples, from the most used to the least used.
    """

    about: Mapping[str, Any]
    counting: CodeCounting
    counts: npt.NDArray[np.int64]
    maps: Mapping[str, npt.NDArray[np.float64]]
    block: int
    distances: tuple[CodeDistances, ...]
    examples: tuple[CodeExamples, ...]

    def numbers(self) -> dict[str, float | int]:
        """The whole in a few numbers; means are over the codebooks, distances over the first ones."""
        use = self.use
        nearest = float(np.mean([each.nearest.mean() for each in self.distances]))
        apart = float(np.mean([each.pairs[~np.eye(len(each.pairs), dtype=bool)].mean() for each in self.distances]))
        if isinstance(use, DimensionUse):
            sample = sum(len(each.codes) for each in self.distances)
            return {
                **use.metrics(),
                "sampled_codes": sample,
                "sampled_nearest_distance": nearest,
                "sampled_distance": apart,
            }
        return {
            "perplexity": use.perplexity,
            "codes_in_use": use.codes_in_use,
            "dead_codes": use.dead_codes,
            "usage": use.usage,
            "share_of_top_percent": top_share(self.counts),
            "mean_nearest_distance": nearest,
            "mean_distance": apart,
        }

    @property
    def use(self) -> CodeUse | DimensionUse:
        """What the counts say."""
        return self.counting.use(torch.from_numpy(self.counts))


def measure_health(
    tokenizer: VQTokenizer, source: ImageSource, *, num_images: int | None = None, batch_size: int = 128
) -> CodebookHealth:
    """Encode images of a split once and look at the codes; memory does not grow with their number.

    Args:
        tokenizer: on the device to compute on.
        source: the split.
        num_images: so many of its images, always the same; None takes all.
        batch_size: images at once.

    Raises:
        ConfigurationError: num_images below 1, or batch_size out of its bounds.
        DataError: none of the images can be read.
        CheckpointError: a number that is not finite.
    """
    images, total = images_for(tokenizer, source, num_images=num_images, batch_size=batch_size)
    shown = range(min(tokenizer.num_codebooks, SHOWN_CODEBOOKS))
    counting = CodeCounting.of(tokenizer.quantizer)
    counts = PositionCounts(counting, grid=tokenizer.grid)
    best = [BestPositions(PATCHES) for _ in shown]
    samples: list[CodeSample] = []
    tokenizer.eval()
    measured = 0
    for rows, codes, distortion in encoded(tokenizer, batches_of(images, total, batch_size)):
        measured += len(rows)
        counts.add(counting.split(torch.from_numpy(codes)).view(*codes.shape[:3], -1).numpy())
        samples = samples or [CodeSample(counting, codes[..., codebook]) for codebook in shown]
        for codebook in shown:
            best[codebook].add(samples[codebook].add(codes[..., codebook]), distortion, images=rows)
    positions = measured * math.prod(tokenizer.grid)
    maps = [counts.by_position(codebook) for codebook in shown]
    examples = [
        CodeExamples(
            codebook=codebook,
            code=int(sample.codes[index]),
            share=float(sample.counts[index] / positions),
            patches=best[codebook].patches(int(sample.codes[index]), images, tokenizer),
            decoded=decode_code(tokenizer, codebook, int(sample.codes[index])),
        )
        for codebook, sample in zip(shown, samples, strict=True)
        for index in spread_codes(sample.counts, max(3, SHOWN_CODES // len(shown)))
    ]
    health = CodebookHealth(
        about=describe_source(tokenizer, source, measured),
        counting=counting,
        counts=counts.totals(),
        maps={name: np.stack([each[name] for each in maps]) for name in maps[0]},
        block=counts.block,
        distances=tuple(
            sample_distances(tokenizer, codebook, sample) for codebook, sample in zip(shown, samples, strict=True)
        ),
        examples=tuple(examples),
    )
    check_measures(health.numbers(), tokenizer)
    return health


def sample_distances(tokenizer: VQTokenizer, codebook: int, sample: CodeSample) -> CodeDistances:
    """Distances between the codes of one codebook that are looked at."""
    codes = torch.from_numpy(sample.codes)
    found = code_distances(code_vectors(tokenizer.quantizer, codebook, codes=codes, device=tokenizer.device))
    return replace(found, codes=sample.codes[found.codes], mapped=sample.codes[found.mapped])


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
    by_dimension = CodeCounting.of(tokenizer.quantizer).by_dimension
    return {
        "dataset": portable(source.name),
        "split": source.split,
        "num_images": num_images,
        "tokenizer": portable(tokenizer.repository, parts=2),
        "fingerprint": tokenizer.fingerprint,
        "grid": list(tokenizer.grid),
        "num_codebooks": tokenizer.num_codebooks,
        "codebook_size": tokenizer.codebook_size,
        **({"counted": "by dimension"} if by_dimension else {}),
    }
