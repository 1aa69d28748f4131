"""Codes of which some are given, sampled by candidates that are weighted by how well they explain the given ones.

The codes x of a grid come in order. Given ones stand where they are, the others are sampled each given all before it.
That is exact where no given code follows a sampled one, as where the top of an image is kept. Otherwise what was
sampled should explain the given codes after it as well. The target is

    p(sampled | given) ~ prod_(i sampled) f(x_i | x_<i)  prod_(i given) g(x_i | x_<i)

with g the prior under guidance and temperature, and f the same under top-k and top-p: a filter decides what is sampled,
and does not forbid the codes of a real image. Without filters f = g, and the target is the conditional distribution of
what `sample_codes` samples from; with temperature 1 and no guidance either, of the prior itself. Candidates are sampled
from f, so that target over proposal, the weight of a candidate, is the product of g over the given codes after its
first sampled one. One of N candidates is chosen by its weight in the end.

    grids       the N are whole grids: sampling importance resampling (Rubin 1988, Bayesian Statistics 3)
    positions   the N are a particle filter: wherever after a given code the effective sample size 1 / sum w^2 is below
                N / 2, they are resampled by their weights, which begin anew (Gordon et al. 1993,
                doi:10.1049/ip-f-2.1993.0015; Doucet and Johansen 2011, sections 3.4 and 3.5)

Both are approximate for finite N, with a bias of order 1 / N, and exact in the limit (Chopin and Papaspiliopoulos 2020,
doi:10.1007/978-3-030-47845-2, chapters 8 to 11). N = 1 is blind to the given codes that come later. Whole grids need an
N that grows exponentially with the variance of the log-weights, so that positions are better where much is given.
Resampling is stratified, which is never noisier than independent draws (Douc and Cappe 2005, arXiv:cs/0507025).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vqtok.priors.next_code import GuidedDecoder, pick

__all__ = ["Resample", "needs_candidates", "resample_candidates", "sample_given"]

Resample: TypeAlias = Literal["positions", "grids"]


def needs_candidates(kept: npt.NDArray[np.bool_]) -> bool:
    """Whether a kept code follows one that is not, for bool (L,) of which not all are kept."""
    return bool(kept[np.argmin(kept) :].any())


def sample_given(
    decoder: GuidedDecoder,
    given: Tensor,
    kept: npt.NDArray[np.bool_],
    uniform: Tensor,
    choice: Tensor,
    *,
    resample: Resample,
) -> Tensor:
    """Codes of which the kept ones are as given.

    Args:
        decoder: of B grids, at the first code.
        given: int64 (B, L).
        kept: bool (L,), not all of them.
        uniform: random numbers (B, N, L) in [0, 1), of the N candidates of each grid; where a code is kept, they
            resample the candidates.
        choice: random numbers (B,), which choose one of them.

    Returns:
        int64 (B, L).
    """
    count, candidates, length = uniform.shape
    sampled = np.flatnonzero(~kept)
    first, last = int(sampled[0]), int(sampled[-1])
    codes, code = given, None
    log_weights = torch.zeros_like(uniform[:, :, 0])
    for index in range(length if candidates > 1 else last + 1):
        logits = decoder.step(code)
        if index == first:  # from here on candidates differ
            rows = torch.arange(count, device=given.device).repeat_interleave(candidates)
            decoder.select(rows)
            codes, logits = given[rows], logits[rows]
        if not kept[index]:
            codes[:, index] = pick(decoder.options.filtered(logits), uniform[:, :, index].flatten())
        elif index > first and candidates > 1:
            explained = logits.log_softmax(dim=-1).gather(1, codes[:, index, None])
            log_weights = log_weights + explained.view(count, candidates)
            if resample == "positions" and index < last:
                ancestors, log_weights = resample_candidates(log_weights, uniform[:, :, index])
                rows = (ancestors + candidates * torch.arange(count, device=given.device)[:, None]).flatten()
                decoder.select(rows)
                codes = codes[rows]
        code = codes[:, index]
    chosen = pick(log_weights, choice)
    return codes.view(count, candidates, length)[torch.arange(count, device=given.device), chosen]


def resample_candidates(log_weights: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Candidates that follow those of before, stratified by weight, where few of these still matter.

    Args:
        log_weights: (B, N), up to a constant for each grid.
        uniform: random numbers (B, N) in [0, 1), one for each stratum.

    Returns:
        ancestors: int64 (B, N), which candidate each one follows; itself where the effective sample size is N / 2 or
            more.
        log_weights: (B, N) of those that follow, 0 where they were resampled.
    """
    candidates = log_weights.shape[1]
    own = torch.arange(candidates, device=log_weights.device)
    weights = log_weights.softmax(dim=1)
    cdf = weights.cumsum(dim=1)
    strata = (own + uniform) / candidates * cdf[:, -1:]
    drawn = torch.searchsorted(cdf, strata, right=True).clamp_(max=candidates - 1)
    few = weights.square().sum(dim=1, keepdim=True).reciprocal() < candidates / 2
    return torch.where(few, drawn, own), log_weights.masked_fill(few, 0.0)
