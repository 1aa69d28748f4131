"""Sample new codes from a prior, and have a tokenizer decode them.

Each image has its own row of random numbers, drawn on the CPU before anything else, so the images of a seed are
the same whatever the batch size.
"""

from __future__ import annotations

from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from vqtok.batches import check_batch_size
from vqtok.errors import ConfigurationError
from vqtok.priors.architecture import Prior
from vqtok.priors.binding import Labels, PriorBinding
from vqtok.priors.next_code import GuidedDecoder, SamplingOptions, check_seed, evaluating, pick

__all__ = ["Detokenizer", "generate", "sample_codes"]


class Detokenizer(Protocol):
    """What sampling needs of a tokenizer."""

    @property
    def fingerprint(self) -> str: ...

    def detokenize(self, codes: Tensor) -> list[Image.Image]: ...


def generate(
    prior: Prior,
    tokenizer: Detokenizer,
    *,
    num_images: int = 16,
    labels: Labels | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    guidance_scale: float = 1.0,
    seed: int | None = None,
    batch_size: int = 64,
) -> list[Image.Image]:
    """Sample new images: `sample_codes`, decoded by the tokenizer.

    Raises:
        MismatchError: the prior was trained on another tokenizer's codes.
        ConfigurationError: as in `sample_codes`.
    """
    PriorBinding.from_config(prior.config).check_tokenizer(tokenizer.fingerprint)
    codes = sample_codes(
        prior,
        num_images=num_images,
        labels=labels,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        guidance_scale=guidance_scale,
        seed=seed,
        batch_size=batch_size,
    )
    return [image for batch in codes.split(batch_size) for image in tokenizer.detokenize(batch)]


def sample_codes(
    prior: Prior,
    *,
    num_images: int = 16,
    labels: Labels | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    guidance_scale: float = 1.0,
    seed: int | None = None,
    batch_size: int = 64,
) -> Tensor:
    """Sample code grids.

    Args:
        prior: of any architecture.
        num_images: how many, at least 1.
        labels: names or numbers of classes, dealt to the images in turn; None samples without a class.
        temperature: at least 1e-6; below 1 favours what is probable.
        top_k: keep the k most probable codes, 0 keeps all; 1 is greedy.
        top_p: keep the fewest codes that reach this probability, in (0, 1].
        guidance_scale: from -1e6 to 1e6; 1 follows the class as trained, more follows it harder; anything but 1 needs
            labels.
        seed: of the random numbers, below 2^64; None takes a new one each time.
        batch_size: images at once; the result does not depend on it.

    Returns:
        int64 (num_images, h, w[, Q]), on the device of the prior.

    Raises:
        ConfigurationError: a number out of its range, a label that no class has, or labels for a prior without classes.
    """
    binding = PriorBinding.from_config(prior.config)
    options = SamplingOptions(temperature=temperature, top_k=top_k, top_p=top_p, guidance_scale=guidance_scale)
    if num_images < 1:
        raise ConfigurationError(f"num_images must be at least 1, got {num_images}")
    check_seed(seed)
    check_batch_size(batch_size)
    options.check_labels(labels)
    classes = binding.classes(labels, num_images).to(prior.device)
    generator = torch.Generator().manual_seed(seed) if seed is not None else None
    noise = torch.rand(num_images, binding.codes_per_image, generator=generator, dtype=torch.float64)
    with evaluating(prior):
        sampled = [
            _sample(GuidedDecoder(prior, batch, options), uniform.to(prior.device))
            for batch, uniform in zip(classes.split(batch_size), noise.split(batch_size), strict=True)
        ]
    return torch.cat(sampled).view(binding.code_shape(num_images))


def _sample(decoder: GuidedDecoder, uniform: Tensor) -> Tensor:
    """Codes (B, L) for random numbers (B, L)."""
    code, sampled = None, []
    for u in uniform.unbind(dim=1):
        code = pick(decoder.options.filtered(decoder.step(code)), u)
        sampled.append(code)
    return torch.stack(sampled, dim=1)
