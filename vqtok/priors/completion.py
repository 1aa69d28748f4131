"""Complete images of which a part is known: what a learned prior over codes is for.

Kept positions of the code grid keep their codes, the others are sampled in raster order given all that came before.
Where kept codes follow sampled ones, candidates are weighted by them: `particles.py` says how, what the result is
distributed as, and what of it is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vqtok.batches import check_batch_size
from vqtok.data.images import ImageInput
from vqtok.data.masking import masked_image
from vqtok.errors import ConfigurationError, DataError, did_you_mean, shortened
from vqtok.priors.architecture import Prior
from vqtok.priors.binding import Labels, PriorBinding
from vqtok.priors.next_code import GuidedDecoder, SamplingOptions, check_seed, evaluating
from vqtok.priors.particles import Resample, needs_candidates, sample_given
from vqtok.priors.sampling import Detokenizer

__all__ = ["Completer", "complete", "complete_codes", "preprocessing"]

MOST_CANDIDATES = 2**12  # which are computed side by side


class Preprocessing(Protocol):
    """How a tokenizer brings images to its size."""

    @property
    def size(self) -> Mapping[str, int]: ...

    @property
    def num_channels(self) -> int: ...

    @property
    def resample(self) -> str: ...


class Completer(Detokenizer, Protocol):
    """What completing needs of a tokenizer."""

    @property
    def image_processor(self) -> Preprocessing: ...

    def tokenize(self, images: Any) -> Tensor: ...


def complete(
    prior: Prior,
    tokenizer: Completer,
    image: ImageInput,
    mask: ImageInput | Tensor | None = None,
    *,
    keep: str | None = None,
    num_completions: int = 4,
    labels: Labels | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    guidance_scale: float = 1.0,
    seed: int | None = None,
    batch_size: int = 64,
    candidates: int = 8,
    resample: Resample = "positions",
    paste: bool = False,
) -> list[Image.Image]:
    """Complete an image in several ways: `complete_codes`, decoded by the tokenizer.

    A position of the grid keeps its code if every pixel of its patch is kept. The encoder sees beyond that patch, so
    unknown pixels are filled from the kept ones around them before the image is encoded (`vqtok.data.masking`): nothing
    of them gets into a completion, and codes beside them may differ from those of the whole image.

    Args:
        prior: of any architecture.
        tokenizer: whose codes the prior was trained on.
        image: as in `vqtok.data.load_image`; brought to the size of the tokenizer as it does it.
        mask: white (128 and above) or True where pixels are kept, of the size of the image or of the tokenizer.
        keep: instead of a mask `top:0.5`: top, bottom, left or right and the share of the image.
        num_completions: how many, at least 1.
        paste: put the kept pixels in the place of decoded ones, bit for bit.

    The other arguments are those of `complete_codes`.

    Returns:
        Images of the size of the tokenizer.

    Raises:
        MismatchError: the prior was trained on another tokenizer's codes.
        ConfigurationError: neither mask nor keep or both, a mask of another size, or as in `complete_codes`.
        DataError: an image or a mask that cannot be read, or that leaves nothing to complete.
    """
    binding = PriorBinding.from_config(prior.config)
    binding.check_tokenizer(tokenizer.fingerprint)
    if num_completions < 1:
        raise ConfigurationError(f"num_completions must be at least 1, got {num_completions}")
    part = masked_image(image, mask, keep=keep, **preprocessing(tokenizer))
    codes = tokenizer.tokenize(part.filled)
    completed = complete_codes(
        prior,
        codes.expand(num_completions, *codes.shape[1:]),
        torch.from_numpy(part.positions(binding.grid)),
        labels=labels,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        guidance_scale=guidance_scale,
        seed=seed,
        batch_size=batch_size,
        candidates=candidates,
        resample=resample,
    )
    images = tokenizer.detokenize(completed)
    return [part.paste(each) for each in images] if paste else images


def preprocessing(tokenizer: Completer) -> dict[str, Any]:
    """Arguments of `masked_image` for the images of a tokenizer."""
    processor = tokenizer.image_processor
    size = (processor.size["height"], processor.size["width"])
    return {"num_channels": processor.num_channels, "size": size, "resample": processor.resample}


def complete_codes(
    prior: Prior,
    codes: Tensor,
    kept: Tensor,
    *,
    labels: Labels | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    guidance_scale: float = 1.0,
    seed: int | None = None,
    batch_size: int = 64,
    candidates: int = 8,
    resample: Resample = "positions",
) -> Tensor:
    """Complete code grids.

    Exact with one candidate where no kept code follows a sampled one, as with the top kept; otherwise approximate, and
    exact as the number of candidates grows. `particles.py` says what the distribution is with temperature, guidance and
    filters.

    Args:
        prior: of any architecture.
        codes: int64 (B, h, w[, Q]), one grid for each completion; those that are not kept may be any in [0, K), such as
            0, and decide nothing.
        kept: bool (h, w), which positions keep their codes.
        labels: names or numbers of classes, dealt to the grids in turn; None completes without a class.
        temperature, top_k, top_p, guidance_scale: as in `sample_codes`.
        seed: of the random numbers, below 2^64; None takes new ones each time. Where one candidate is enough the
            numbers are those of `sample_codes`.
        batch_size: grids at once, candidates included, but at least those of one completion; the result does not
            depend on it.
        candidates: N of each completion, from 1 to 4,096; one is enough where no kept code follows a sampled one.
        resample: `positions` or `grids`.

    Returns:
        int64 (B, h, w[, Q]), on the device of the prior.

    Raises:
        ConfigurationError: a number out of its range, a label that no class has, or labels for a prior without classes.
        DataError: codes that are not of this prior, `kept` of another shape, or nothing to complete.
    """
    binding = PriorBinding.from_config(prior.config)
    options = SamplingOptions(temperature=temperature, top_k=top_k, top_p=top_p, guidance_scale=guidance_scale)
    options.check_labels(labels)
    if not 1 <= candidates <= MOST_CANDIDATES:
        raise ConfigurationError(f"candidates must be from 1 to {MOST_CANDIDATES:,}, got {candidates:,}")
    if resample not in get_args(Resample):
        raise ConfigurationError(
            f"resample must be positions or grids, got {shortened(resample)}."
            f"{did_you_mean(str(resample), get_args(Resample))}"
        )
    check_seed(seed)
    check_batch_size(batch_size)
    if tuple(kept.shape) != binding.grid or kept.dtype != torch.bool:
        raise DataError(f"kept must be bool of shape {binding.grid}, got {kept.dtype} {tuple(kept.shape)}")
    flat = np.asarray(kept.cpu()).repeat(binding.num_codebooks)
    if flat.all():
        raise DataError("there is nothing to complete: every position is kept")
    given = binding.flatten(codes).to(prior.device)
    classes = binding.classes(labels, len(given)).to(prior.device)
    candidates = candidates if needs_candidates(flat) else 1
    generator = torch.Generator().manual_seed(seed) if seed is not None else None
    noise = torch.rand(len(given), candidates, len(flat), generator=generator, dtype=torch.float64)
    choices = torch.rand(len(given), generator=generator, dtype=torch.float64)
    together = max(1, batch_size // candidates)
    batches = zip(*(each.split(together) for each in (classes, given, noise, choices)), strict=True)
    with evaluating(prior):
        completed = [
            sample_given(
                GuidedDecoder(prior, some_classes, options),
                some_codes,
                flat,
                uniform.to(prior.device),
                choice.to(prior.device),
                resample=resample,
            )
            for some_classes, some_codes, uniform, choice in batches
        ]
    return torch.cat(completed).view(binding.code_shape(len(given)))
