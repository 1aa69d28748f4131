"""Sample new codes from a prior, and have a tokenizer decode them.

Guidance mixes what a prior knows with and without the class, logits = null + s (class - null), which sharpens towards
the class for s > 1 (Ho and Salimans 2022, arXiv:2207.12598). Top-k keeps the k most probable codes (Fan et al. 2018,
arXiv:1805.04833), top-p the fewest that together reach probability p (Holtzman et al. 2020, arXiv:1904.09751).

Each image has its own row of random numbers, drawn on the CPU before anything else, so the images of a seed are
the same whatever the batch size.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from vqtok.batches import check_batch_size
from vqtok.errors import ConfigurationError
from vqtok.priors.architecture import Prior
from vqtok.priors.binding import Labels, PriorBinding
from vqtok.priors.registry import architecture_of

__all__ = ["Detokenizer", "filter_top_k", "filter_top_p", "generate", "sample_codes"]


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
    _check(num_images, temperature, top_k, top_p, guidance_scale, seed, batch_size)
    if guidance_scale != 1 and labels is None:
        raise ConfigurationError(
            f"guidance_scale {guidance_scale} needs labels: it strengthens a class, and none was given"
        )
    classes = binding.classes(labels, num_images).to(prior.device)
    generator = torch.Generator().manual_seed(seed) if seed is not None else None
    noise = torch.rand(num_images, binding.codes_per_image, generator=generator, dtype=torch.float64)

    was_training = prior.training
    prior.eval()
    try:
        sampled = [
            _sample(prior, batch, uniform.to(prior.device), temperature, top_k, top_p, guidance_scale)
            for batch, uniform in zip(classes.split(batch_size), noise.split(batch_size), strict=True)
        ]
    finally:
        prior.train(was_training)
    return torch.cat(sampled).view(binding.code_shape(num_images))


@torch.inference_mode()
def _sample(
    prior: Prior, classes: Tensor, uniform: Tensor, temperature: float, top_k: int, top_p: float, scale: float
) -> Tensor:
    """Codes (B, L) for classes (B,) and random numbers (B, L); with guidance the null class runs as a second half."""
    guided = scale != 1
    if guided:
        null_class = PriorBinding.from_config(prior.config).null_class
        classes = torch.cat([classes, torch.full_like(classes, null_class)])
    decoder = architecture_of(prior).decoder(prior, classes)
    code, sampled = None, []
    for u in uniform.unbind(dim=1):
        logits = decoder.step(code).double()
        if guided:
            conditional, null = logits.chunk(2)
            logits = null + scale * (conditional - null)
        logits = filter_top_p(filter_top_k(logits / temperature, top_k), top_p)
        sampled.append(pick(logits, u))
        code = sampled[-1].repeat(2) if guided else sampled[-1]
    return torch.stack(sampled, dim=1)


def filter_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Logits (B, K) with all but the `top_k` highest of each row at -inf; 0 keeps all. Ties at the edge all stay."""
    if not 0 < top_k < logits.shape[-1]:
        return logits
    edge = logits.topk(top_k, dim=-1).values[:, -1:]
    return logits.masked_fill(logits < edge, float("-inf"))


def filter_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Logits (B, K) with all at -inf but the fewest of each row whose probabilities reach `top_p`; 1 keeps all."""
    if top_p >= 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(dim=-1)
    enough_before = probabilities.cumsum(dim=-1) - probabilities >= top_p
    return logits.masked_fill(torch.zeros_like(enough_before).scatter(-1, order, enough_before), float("-inf"))


def pick(logits: Tensor, uniform: Tensor) -> Tensor:
    """Invert the distribution function: code c (B,) where cdf(c - 1) <= u < cdf(c), for u (B,) in [0, 1)."""
    cdf = logits.softmax(dim=-1).cumsum(dim=-1)
    code = torch.searchsorted(cdf, uniform[:, None] * cdf[:, -1:], right=True)
    return code.squeeze(-1).clamp_(max=logits.shape[-1] - 1)


def _check(
    num_images: int,
    temperature: float,
    top_k: int,
    top_p: float,
    guidance_scale: float,
    seed: int | None,
    batch_size: int,
) -> None:
    greedy = "for the most probable codes take top_k=1"
    for name, value, right, allowed in (
        ("num_images", num_images, num_images >= 1, "at least 1"),
        ("temperature", temperature, 1e-6 <= temperature < math.inf, f"a number of at least 1e-6; {greedy}"),
        ("top_k", top_k, top_k >= 0, "at least 0; 0 keeps all codes"),
        ("top_p", top_p, 0 < top_p <= 1, "above 0 and at most 1"),
        (
            "guidance_scale",
            guidance_scale,
            abs(guidance_scale) <= 1e6,
            "from -1e6 to 1e6; 1 follows the class as trained",
        ),
        ("seed", seed, seed is None or 0 <= seed < 2**64, "at least 0 and below 2^64"),
    ):
        if not right:
            raise ConfigurationError(f"{name} must be {allowed}, got {value}")
    check_batch_size(batch_size)
