from __future__ import annotations

import pytest
import torch

from tests.priors.conftest import make_binding, make_prior
from vqtok.priors import code_logits
from vqtok.priors.next_code import GuidedDecoder, SamplingOptions, filter_top_k, filter_top_p, pick


@torch.no_grad()
def test_both_halves_of_a_guided_decoder_go_on_with_the_rows_that_are_selected() -> None:
    prior = make_prior("transformer", make_binding())
    codes, classes = torch.tensor([[0, 1, 2, 0], [2, 2, 1, 1]]), torch.tensor([0, 1])
    decoder = GuidedDecoder(prior, classes, SamplingOptions(guidance_scale=3.0, temperature=0.5))
    decoder.step(None)
    rows = torch.tensor([1, 0, 1])
    decoder.select(rows)
    conditional = code_logits(prior, codes[rows], classes[rows])[:, 1].double()
    null = code_logits(prior, codes[rows], torch.full((3,), 2))[:, 1].double()
    expected = (null + 3 * (conditional - null)) / 0.5
    torch.testing.assert_close(decoder.step(codes[rows, 0]), expected, rtol=1e-4, atol=1e-5)


def probabilities_by_hand(logits: list[float], top_k: int, top_p: float) -> list[float]:
    """Softmax, the k best, softmax again, the shortest head that reaches p: one row, in plain Python."""
    exponentials = [2.718281828459045**value for value in logits]
    best = sorted(range(len(logits)), key=lambda code: -logits[code])
    kept = best[: top_k or len(best)]
    total, reached, head = sum(exponentials[code] for code in kept), 0.0, []
    for code in kept:
        if reached >= top_p:
            break
        head.append(code)
        reached += exponentials[code] / total
    share = sum(exponentials[code] for code in head)
    return [exponentials[code] / share if code in head else 0.0 for code in range(len(logits))]


@pytest.mark.parametrize("top_k", [0, 1, 3, 7, 50])
@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.9, 1.0])
def test_filters_equal_the_plain_ones(top_k: int, top_p: float) -> None:
    logits = torch.randn(20, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 2
    ours = filter_top_p(filter_top_k(logits, top_k), top_p).softmax(dim=-1)
    by_hand = [probabilities_by_hand(row, top_k, top_p) for row in logits.tolist()]
    torch.testing.assert_close(ours, torch.tensor(by_hand, dtype=torch.float64))


def test_a_code_that_was_filtered_out_is_never_sampled() -> None:
    """Not even by the two ends of [0, 1)."""
    logits = torch.tensor([[float("-inf"), 0.0, 0.0, float("-inf")]], dtype=torch.float64).repeat(3, 1)
    uniform = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert pick(logits, uniform).tolist() == [1, 2, 2]
