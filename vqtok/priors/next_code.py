"""How the next code is chosen: guidance, temperature, filters, and one random number that picks it.

Guidance mixes what a prior knows with and without the class, logits = null + s (class - null), which sharpens towards
the class for s > 1 (Ho and Salimans 2022, arXiv:2207.12598). Top-k keeps the k most probable codes (Fan et al. 2018,
arXiv:1805.04833), top-p the fewest that together reach probability p (Holtzman et al. 2020, arXiv:1904.09751).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from vqtok.errors import ConfigurationError
from vqtok.priors.architecture import Prior
from vqtok.priors.binding import Labels, PriorBinding
from vqtok.priors.registry import architecture_of

__all__ = ["GuidedDecoder", "SamplingOptions", "check_seed", "evaluating", "filter_top_k", "filter_top_p", "pick"]


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """What decides how probable each next code is.

    Args:
        temperature: at least 1e-6; below 1 favours what is probable.
        top_k: keep the k most probable codes, 0 keeps all; 1 is greedy.
        top_p: keep the fewest codes that reach this probability, in (0, 1].
        guidance_scale: from -1e6 to 1e6; 1 follows the class as trained, more follows it harder.

    Raises:
        ConfigurationError: a number out of its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance_scale: float = 1.0

    def __post_init__(self) -> None:
        greedy = "for the most probable codes take top_k=1"
        for name, right, allowed in (
            ("temperature", 1e-6 <= self.temperature < math.inf, f"a number of at least 1e-6; {greedy}"),
            ("top_k", self.top_k >= 0, "at least 0; 0 keeps all codes"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("guidance_scale", abs(self.guidance_scale) <= 1e6, "from -1e6 to 1e6; 1 follows the class as trained"),
        ):
            if not right:
                raise ConfigurationError(f"{name} must be {allowed}, got {getattr(self, name)}")

    def check_labels(self, labels: Labels | None) -> None:
        """Refuse guidance towards no class."""
        if self.guidance_scale != 1 and labels is None:
            raise ConfigurationError(
                f"guidance_scale {self.guidance_scale} needs labels: it strengthens a class, and none was given"
            )

    def filtered(self, logits: Tensor) -> Tensor:
        """Logits (B, K) with those at -inf that are never sampled."""
        return filter_top_p(filter_top_k(logits, self.top_k), self.top_p)


class GuidedDecoder:
    """A prior in the middle of its samples, guided and tempered; the null class runs as a second half where it must."""

    def __init__(self, prior: Prior, classes: Tensor, options: SamplingOptions) -> None:
        self.options, self.guided = options, options.guidance_scale != 1
        if self.guided:
            null_class = PriorBinding.from_config(prior.config).null_class
            classes = torch.cat([classes, torch.full_like(classes, null_class)])
        self.decoder = architecture_of(prior).decoder(prior, classes)
        self.rows = len(classes)

    def step(self, previous: Tensor | None) -> Tensor:
        """Logits (B, K), float64, of the next code before filters, given the codes (B,) before it; None at first."""
        if self.guided and previous is not None:
            previous = previous.repeat(2)
        logits = self.decoder.step(previous).double()
        if self.guided:
            conditional, null = logits.chunk(2)
            logits = null + self.options.guidance_scale * (conditional - null)
        return logits / self.options.temperature

    def select(self, rows: Tensor) -> None:
        """Go on with some of the B, as `Decoder.select` does."""
        if self.guided:
            half = self.rows // 2
            rows = torch.cat([rows, rows + half])
        self.decoder.select(rows)
        self.rows = len(rows)


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


def check_seed(seed: int | None) -> None:
    """Refuse a seed that torch would not take."""
    if seed is not None and not 0 <= seed < 2**64:
        raise ConfigurationError(f"seed must be at least 0 and below 2^64, got {seed}")


@contextmanager
def evaluating(prior: Prior) -> Iterator[None]:
    """The prior in evaluation mode and without gradients, and afterwards as it was."""
    was_training = prior.training
    prior.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        prior.train(was_training)
