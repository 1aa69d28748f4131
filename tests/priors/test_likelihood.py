from __future__ import annotations

import math

import pytest
import torch

from tests.priors.conftest import make_binding, make_prior
from vqtok.errors import ConfigurationError, DataError
from vqtok.priors import Prior, PriorBinding, build_prior, code_logits, negative_log_likelihood, training_loss
from vqtok.priors.transformer import token_ids


@pytest.mark.parametrize("label", [None, 0, 1])
def test_probabilities_of_all_grids_sum_to_one(prior: Prior, every_grid: torch.Tensor, label: int | None) -> None:
    nats = negative_log_likelihood(prior, every_grid, label)
    assert nats.shape == (81,)
    assert torch.exp(-nats.double()).sum().item() == pytest.approx(1, abs=1e-5)
    assert nats.std() > 0.5


def test_the_class_changes_the_probabilities(prior: Prior, every_grid: torch.Tensor) -> None:
    by_label = [negative_log_likelihood(prior, every_grid, label) for label in (None, 0, 1)]
    assert (by_label[0] - by_label[1]).abs().max() > 0.1
    assert (by_label[1] - by_label[2]).abs().max() > 0.1


@pytest.mark.parametrize("kind", ["pixelcnn", "transformer"])
@pytest.mark.parametrize(("grid", "books"), [((5, 5), 1), ((3, 3), 3)])
def test_a_code_is_seen_by_all_later_ones_and_by_no_other(kind: str, grid: tuple[int, int], books: int) -> None:
    """The strictly lower triangle of L x L: causal, and without the blind spot of the first PixelCNN."""
    binding = make_binding(grid=grid, codebook_size=4, num_codebooks=books)
    prior, length = make_prior(kind, binding).double(), binding.codes_per_image
    codes = torch.randint(4, (1, length), generator=torch.Generator().manual_seed(0))
    changed = codes.repeat(length, 1)
    changed[range(length), range(length)] = (codes[0] + 1) % 4
    with torch.no_grad():
        logits = code_logits(prior, torch.cat([codes, changed]), torch.zeros(length + 1, dtype=torch.long))
    assert logits.shape == (length + 1, length, 4)
    difference = (logits[1:] - logits[0]).abs().amax(dim=-1)
    allowed = torch.ones(length, length).triu(1).bool()
    assert difference[~allowed].max() < 1e-13
    assert difference[allowed].min() > 1e-11


def test_training_minimises_the_likelihood_of_the_codes(
    prior: Prior, binding: PriorBinding, every_grid: torch.Tensor
) -> None:
    flat, classes = binding.flatten(every_grid), binding.classes([0, 1, 2][:2], 81)
    nats = negative_log_likelihood(prior, every_grid, classes) / binding.codes_per_image
    with torch.no_grad():
        loss = training_loss(prior, flat, classes)
        if prior.config.model_type == "llama":
            # Over the whole vocabulary: the share of the other tokens comes on top.
            tokens = token_ids(binding, flat, classes)
            every = prior(input_ids=tokens[:, :-1]).logits.double()
            allowed = code_logits(prior, flat, classes).double()
            surplus = every.logsumexp(-1) - allowed.logsumexp(-1)
            assert surplus.min() > 0
            assert loss.item() == pytest.approx((nats.mean() + surplus.mean()).item(), rel=1e-5)
        else:
            assert loss.item() == pytest.approx(nats.mean().item(), rel=1e-5)


def test_gradients_reach_every_weight(prior: Prior, binding: PriorBinding, every_grid: torch.Tensor) -> None:
    classes = torch.arange(81) % 3  # both classes and the null class
    training_loss(prior, binding.flatten(every_grid), classes).backward()
    idle = [name for name, weight in prior.named_parameters() if weight.grad is None or not weight.grad.any()]
    prior.zero_grad()
    assert idle == []


def test_a_fresh_prior_is_nearly_uniform() -> None:
    torch.manual_seed(0)
    codes = torch.randint(64, (8, 4, 4))
    for kind, books in (("pixelcnn", 1), ("pixelcnn", 4), ("transformer", 1)):
        binding = make_binding(grid=(4, 4 // books), codebook_size=64, num_codebooks=books)
        prior = build_prior(binding, {"type": kind, "hidden_size": 64})
        per_code = negative_log_likelihood(prior.eval(), codes.view(binding.code_shape(8)), 0) / 16
        assert per_code.mean().item() == pytest.approx(math.log(64), abs=0.6)


def test_what_does_not_fit_is_refused(prior: Prior, every_grid: torch.Tensor) -> None:
    with pytest.raises(DataError, match=r"\[0, 3\)"):
        negative_log_likelihood(prior, every_grid + 1)
    with pytest.raises(DataError, match="shape"):
        negative_log_likelihood(prior, every_grid.flatten(1))
    with pytest.raises(ConfigurationError, match="label"):
        negative_log_likelihood(prior, every_grid, 2)
