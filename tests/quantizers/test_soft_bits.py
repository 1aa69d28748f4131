from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqtok.quantizers.base import entropy
from vqtok.quantizers.soft_bits import bit_entropy, sum_of_assignments


def by_hand(logits: torch.Tensor) -> torch.Tensor:
    """p_n(c) of every code, one after the other: log-odds (D, N) -> float64 (2^D, N)."""
    ones = torch.sigmoid(logits.double())
    codes = []
    for code in range(2 ** len(logits)):
        sides = [ones[bit] if code >> bit & 1 else 1 - ones[bit] for bit in range(len(logits))]
        codes.append(torch.stack(sides).prod(dim=0))
    return torch.stack(codes)


@settings(max_examples=30, deadline=None)
@given(
    bits=st.integers(1, 7), rows=st.integers(0, 20), scale=st.sampled_from([0.1, 1.0, 5.0]), seed=st.integers(0, 2**16)
)
def test_sums_and_entropies_over_all_codes_with_their_gradients(bits: int, rows: int, scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    logits = (scale * torch.randn(bits, rows)).requires_grad_()
    weights = torch.randn(2**bits)
    exact = logits.detach().double().requires_grad_()
    assignments = by_hand(exact)

    sums = sum_of_assignments(logits)
    torch.testing.assert_close(sums.double(), assignments.sum(dim=1), rtol=1e-5, atol=1e-6)
    ours = torch.autograd.grad((sums * weights).sum(), logits)[0]
    theirs = torch.autograd.grad((assignments.sum(dim=1) * weights).sum(), exact, retain_graph=True)[0]
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-6)

    each = bit_entropy(logits).sum(dim=0)
    expected = torch.special.entr(assignments).sum(dim=0)
    torch.testing.assert_close(each.double(), expected, rtol=1e-5, atol=1e-6)
    ours = torch.autograd.grad(each.sum(), logits)[0]
    theirs = torch.autograd.grad(expected.sum(), exact)[0]
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bits", range(1, 7))
def test_gradients_by_differences(bits: int) -> None:
    torch.manual_seed(0)
    logits = (2 * torch.randn(bits, 3, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(bit_entropy, (logits,))
    assert torch.autograd.gradcheck(sum_of_assignments, (logits,))
    assert torch.autograd.gradcheck(lambda logits: entropy(sum_of_assignments(logits) / 3), (logits,))


def test_a_quarter_of_a_million_codes() -> None:
    torch.manual_seed(0)
    logits = torch.randn(18, 40, requires_grad=True)
    means = sum_of_assignments(logits) / 40
    entropy(means).backward()
    assert means.shape == (2**18,)
    assert means.sum().item() == pytest.approx(1, rel=1e-5)
    ones = torch.sigmoid(logits.detach().double())
    for code in torch.randint(2**18, (20,)).tolist():
        sides = [ones[bit] if code >> bit & 1 else 1 - ones[bit] for bit in range(18)]
        assert means[code].item() == pytest.approx(torch.stack(sides).prod(dim=0).mean().item(), rel=1e-4)
    assert logits.grad is not None and logits.grad.isfinite().all() and logits.grad.abs().max() > 0


@pytest.mark.parametrize("size", [0.0, 1e-20, 30.0, 85.0, 100.0, 1e15])
def test_bits_that_are_sure_or_wholly_unsure(size: float) -> None:
    signs = torch.tensor([[1.0, -1.0, 1.0], [1.0, 1.0, -1.0]])
    logits = (size * signs).requires_grad_()
    each, means = bit_entropy(logits), sum_of_assignments(logits) / 3
    (each.sum() + entropy(means)).backward()
    expected = math.log1p(math.exp(-size)) + size / (1 + math.exp(min(size, 700)))
    assert each.flatten().tolist() == pytest.approx([expected] * 6, rel=1e-5, abs=1e-15)
    assert logits.grad is not None and logits.grad.isfinite().all()
    if size == 1e15:
        assert means.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
        assert logits.grad.abs().max() < 1e-30


def test_what_is_not_a_number_stays_so() -> None:
    logits = torch.tensor([[0.0, torch.nan], [1.0, 1.0]])
    assert bit_entropy(logits).isnan().tolist() == [[False, True], [False, False]]
    assert entropy(sum_of_assignments(logits)).isnan()
