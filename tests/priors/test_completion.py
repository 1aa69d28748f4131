"""Completions against the conditional distribution of tiny priors, every grid of which is written out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.priors.conftest import make_binding, make_prior
from vqtok.data import masked_image
from vqtok.errors import ConfigurationError, DataError, MismatchError
from vqtok.priors import Prior, PriorBinding, code_logits, complete, complete_codes, sample_codes
from vqtok.priors.completion import preprocessing
from vqtok.priors.next_code import filter_top_k, filter_top_p
from vqtok.tokenizer import VQTokenizer

COUNT = 2000
MASK = torch.tensor([[False, True, False], [True, False, True]])
CASES: list[tuple[str, dict[str, object]]] = [
    ("pixelcnn", {"grid": (2, 3), "codebook_size": 2}),
    ("transformer", {"grid": (2, 3), "codebook_size": 2}),
    ("pixelcnn", {"grid": (2, 2), "codebook_size": 2, "num_codebooks": 2}),
    ("transformer", {"grid": (2, 2), "codebook_size": 2, "num_codebooks": 2}),
]


def middle(changes: dict[str, object]) -> Tensor:
    """A mask with kept positions between and after those that are not."""
    return MASK if changes["grid"] == (2, 3) else torch.tensor([[False, True], [False, True]])


def opinionated(kind: str, changes: dict[str, object]) -> Prior:
    """A prior whose later codes say much about earlier ones, so that who ignores them is found out."""
    prior = make_prior(kind, make_binding(**changes))
    with torch.no_grad():
        for name, weight in prior.named_parameters():
            if "embed" in name or "position" in name:
                weight.mul_(1.5)
    return prior


@torch.no_grad()
def distributions(prior: Prior, given: Tensor, kept: Tensor, *, label: int | None, **options: Any) -> Tensor:
    """Of every grid that holds the given codes, (n, L): how probable it is as a completion, and as a blind one.

    Args:
        given: (L,).
        kept: bool (L,).

    Returns:
        (grids, 2 + L): the two probabilities, and the codes.
    """
    binding = PriorBinding.from_config(prior.config)
    grids = torch.cartesian_prod(*[torch.arange(binding.codebook_size)] * len(given))
    grids = grids[(grids[:, kept] == given[kept]).all(dim=1)]
    scale, temperature = options.get("guidance_scale", 1.0), options.get("temperature", 1.0)
    null = code_logits(prior, grids, torch.full((len(grids),), binding.null_class)).double()
    if label is not None:
        conditional = code_logits(prior, grids, torch.full((len(grids),), label)).double()
        null = null + scale * (conditional - null)
    logits = null / temperature
    flat = filter_top_p(filter_top_k(logits.flatten(0, 1), options.get("top_k", 0)), options.get("top_p", 1.0))
    sampled = flat.view_as(logits).log_softmax(-1).gather(2, grids[:, :, None])[:, :, 0][:, ~kept].sum(dim=1)
    explained = logits.log_softmax(-1).gather(2, grids[:, :, None])[:, :, 0][:, kept].sum(dim=1)
    return torch.cat([(sampled + explained).softmax(0)[:, None], sampled.softmax(0)[:, None], grids], dim=1)


def frequencies(completed: Tensor, grids: Tensor) -> Tensor:
    """How often each of the grids (n, L) is among the completions (B, L): shares (n,)."""
    found = (completed[:, None] == grids[None]).all(dim=2).double()
    assert found.sum().item() == len(completed)  # each is one of them: kept codes are kept
    return found.mean(dim=0)


def deviations(shares: Tensor, expected: Tensor) -> float:
    """The largest difference, in standard deviations of a share of COUNT."""
    return float(((shares - expected) / ((expected * (1 - expected) / COUNT).sqrt() + 2e-3)).abs().max())


def completed_and_expected(
    prior: Prior, kept: Tensor, *, label: int | None = 1, candidates: int, **options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Shares of each possible grid, and what they should be for many candidates, and for one."""
    binding = PriorBinding.from_config(prior.config)
    given = torch.randint(binding.codebook_size, (binding.codes_per_image,), generator=torch.Generator().manual_seed(6))
    flat = kept.flatten().repeat_interleave(binding.num_codebooks)
    resample = options.pop("resample", "positions")
    table = distributions(prior, given, flat, label=label, **options)
    completed = complete_codes(
        prior,
        given.view(binding.code_shape(1)).expand(binding.code_shape(COUNT)),
        kept,
        labels=label,
        seed=0,
        batch_size=2**17,
        candidates=candidates,
        resample=resample,
        **options,
    )
    return frequencies(completed.flatten(1), table[:, 2:].long()), table[:, 0], table[:, 1]


@pytest.mark.parametrize("resample", ["positions", "grids"])
@pytest.mark.parametrize(("kind", "changes"), CASES)
def test_many_candidates_follow_the_conditional_distribution_and_one_does_not(
    kind: str, changes: dict[str, object], resample: str
) -> None:
    prior = opinionated(kind, changes)
    blind, target, proposal = completed_and_expected(prior, middle(changes), candidates=1, resample=resample)
    assert (target - proposal).abs().sum().item() / 2 > 0.1
    assert deviations(blind, proposal) < 4
    assert deviations(blind, target) > 6
    shares, target, _ = completed_and_expected(prior, middle(changes), candidates=32, resample=resample)
    assert deviations(shares, target) < 4


def test_bias_falls_with_the_number_of_candidates() -> None:
    kind, changes = CASES[1]
    prior = opinionated(kind, changes)
    for resample in ("positions", "grids"):
        distances = []
        for candidates in (1, 2, 4, 32):
            shares, target, _ = completed_and_expected(prior, middle(changes), candidates=candidates, resample=resample)
            distances.append((shares - target).abs().sum().item() / 2)
        assert distances == sorted(distances, reverse=True)
        assert distances[0] > 0.1 and distances[-1] < 0.05


@pytest.mark.parametrize("resample", ["positions", "grids"])
@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 2.0},
        {"temperature": 2.5, "guidance_scale": 2.0},
        {"temperature": 1.5, "top_k": 2},
        {"temperature": 3.0, "top_p": 0.9, "guidance_scale": 1.5},
    ],
)
def test_temperature_guidance_and_filters_have_the_target_that_is_promised(
    options: dict[str, float], resample: str
) -> None:
    prior = opinionated("transformer", {"grid": (1, 4), "codebook_size": 3})
    kept = torch.tensor([[False, True, False, True]])
    shares, target, proposal = completed_and_expected(prior, kept, candidates=32, resample=resample, **options)
    assert (target - proposal).abs().sum().item() / 2 > 0.05
    assert deviations(shares, target) < 4


@pytest.mark.parametrize(("kind", "changes"), CASES)
@pytest.mark.parametrize("label", [None, 0])
def test_what_is_kept_before_all_else_needs_one_candidate(
    kind: str, changes: dict[str, object], label: int | None
) -> None:
    top = torch.zeros_like(middle(changes))
    top[0] = True
    shares, target, _ = completed_and_expected(opinionated(kind, changes), top, label=label, candidates=1)
    assert deviations(shares, target) < 4


@pytest.mark.parametrize(("kind", "changes"), CASES)
@pytest.mark.parametrize("resample", ["positions", "grids"])
def test_a_seed_decides_whatever_the_batch_size(kind: str, changes: dict[str, object], resample: Any) -> None:
    prior = opinionated(kind, changes)
    binding, mask = PriorBinding.from_config(prior.config), middle(changes)
    codes = torch.randint(2, binding.code_shape(7), generator=torch.Generator().manual_seed(0))
    alike = [
        complete_codes(
            prior, codes, mask, labels=[0, 1], seed=5, batch_size=size, resample=resample, guidance_scale=1.5
        )
        for size in (1, 20, 64)
    ]
    assert alike[0].shape == codes.shape and alike[0].dtype == torch.int64
    assert torch.equal(alike[0], alike[1]) and torch.equal(alike[0], alike[2])
    assert torch.equal(alike[0][:, mask], codes[:, mask])
    assert not torch.equal(alike[0], complete_codes(prior, codes, mask, labels=[0, 1], seed=6, resample=resample))


def test_where_nothing_is_kept_it_is_sampling() -> None:
    prior = opinionated(*CASES[1])
    codes, none = torch.zeros(5, 2, 3, dtype=torch.long), torch.zeros(2, 3, dtype=torch.bool)
    assert torch.equal(
        complete_codes(prior, codes, none, labels=[1, 0], seed=3, candidates=4),
        sample_codes(prior, num_images=5, labels=[1, 0], seed=3),
    )


def test_codes_that_are_not_kept_are_not_looked_at() -> None:
    prior = opinionated(*CASES[0])
    codes = torch.randint(2, (5, 2, 3))
    other = torch.where(MASK, codes, 1 - codes)
    assert torch.equal(complete_codes(prior, codes, MASK, seed=1), complete_codes(prior, other, MASK, seed=1))


def test_completing_leaves_the_mode_the_codes_and_the_random_state_alone() -> None:
    prior = opinionated(*CASES[1]).train()
    codes = torch.zeros(3, 2, 3, dtype=torch.long)
    state = torch.get_rng_state()
    complete_codes(prior, codes, MASK, seed=0)
    assert prior.training and not codes.any()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"candidates": 0}, "candidates must be from 1 to 4,096, got 0"),
        ({"resample": "grid"}, "resample must be positions or grids, got 'grid'. Did you mean 'grids'"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"temperature": math.nan}, "temperature must be"),
        ({"guidance_scale": 2.0}, "guidance_scale 2.0 needs labels"),
        ({"labels": "cow"}, "no class 'cow': choose one of cat, dog"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any], message: str) -> None:
    prior = opinionated(*CASES[1])
    with pytest.raises(ConfigurationError, match=message):
        complete_codes(prior, torch.zeros(1, 2, 3, dtype=torch.long), MASK, **wrong)


def test_masks_that_do_not_fit_codes_are_refused() -> None:
    prior, codes = opinionated(*CASES[1]), torch.zeros(1, 2, 3, dtype=torch.long)
    with pytest.raises(DataError, match="nothing to complete"):
        complete_codes(prior, codes, torch.ones(2, 3, dtype=torch.bool))
    for kept in (torch.zeros(3, 2, dtype=torch.bool), torch.zeros(2, 3)):
        with pytest.raises(DataError, match=r"kept must be bool of shape \(2, 3\), got"):
            complete_codes(prior, codes, kept)


@pytest.fixture
def digit() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8))


@pytest.fixture
def own_prior(tiny_tokenizer: VQTokenizer) -> Prior:
    """A prior of the codes of the tiny tokenizer, 4 x 4 of 16."""
    return make_prior("pixelcnn", make_binding(fingerprint=tiny_tokenizer.fingerprint, grid=(4, 4), codebook_size=16))


def test_completions_are_decoded_codes_that_hold_the_kept_ones(
    tiny_tokenizer: VQTokenizer, own_prior: Prior, digit: Image.Image
) -> None:
    options: dict[str, Any] = {"labels": ["dog"], "seed": 2, "temperature": 0.8}
    part = masked_image(digit, keep="left:0.5", **preprocessing(tiny_tokenizer))
    codes = tiny_tokenizer.tokenize(part.filled).expand(3, 4, 4)
    kept = torch.zeros(4, 4, dtype=torch.bool)
    kept[:, :2] = True
    completed = complete_codes(own_prior, codes, kept, **options)
    images = complete(own_prior, tiny_tokenizer, digit, keep="left:0.5", num_completions=3, **options)
    assert torch.equal(completed[:, kept], codes[:, kept])
    assert len({grid.numpy().tobytes() for grid in completed}) == 3
    for image, expected in zip(images, tiny_tokenizer.detokenize(completed), strict=True):
        assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_pasted_pixels_are_those_that_were_kept(
    tiny_tokenizer: VQTokenizer, own_prior: Prior, digit: Image.Image
) -> None:
    mask = np.ones((16, 16), dtype=bool)
    mask[5:11, 3:14] = False
    plain, pasted = (
        complete(own_prior, tiny_tokenizer, digit, mask, num_completions=2, seed=0, paste=paste)
        for paste in (False, True)
    )
    for without, image in zip(plain, pasted, strict=True):
        assert np.array_equal(np.asarray(image)[mask], np.asarray(digit)[mask])
        assert np.array_equal(np.asarray(image)[~mask], np.asarray(without)[~mask])


def test_nothing_of_the_unknown_part_gets_into_a_completion(
    tiny_tokenizer: VQTokenizer, own_prior: Prior, digit: Image.Image
) -> None:
    """Of an image of three times the size, which is resized with a filter that looks far."""
    large = np.asarray(digit.resize((48, 48)))
    mask = torch.ones(48, 48, dtype=torch.bool)
    mask[10:33, 12:] = False
    other = np.where(mask, large, 255 - large)
    first, second = (
        complete(own_prior, tiny_tokenizer, image, mask, num_completions=2, seed=0, paste=True)
        for image in (large, other)
    )
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(first, second, strict=True))


def test_completing_refuses_what_does_not_belong_together(
    tiny_tokenizer: VQTokenizer, own_prior: Prior, digit: Image.Image
) -> None:
    stranger = make_prior("transformer", make_binding())
    with pytest.raises(MismatchError, match="ffffffffffff"):
        complete(stranger, tiny_tokenizer, digit, keep="top:0.5")
    with pytest.raises(ConfigurationError, match="num_completions must be at least 1, got 0"):
        complete(own_prior, tiny_tokenizer, digit, keep="top:0.5", num_completions=0)
    unlabelled = make_prior(
        "pixelcnn",
        make_binding(fingerprint=tiny_tokenizer.fingerprint, grid=(4, 4), codebook_size=16, label_names=None),
    )
    with pytest.raises(ConfigurationError, match="without classes"):
        complete(unlabelled, tiny_tokenizer, digit, keep="top:0.5", labels=1)
