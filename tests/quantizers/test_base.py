from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_quantize_pytorch.vector_quantize_pytorch import rotate_to

from vqtok.quantizers.base import entropy, from_rows, perplexity, rotation_trick, straight_through, to_rows


@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 3), dim=st.integers(1, 5), height=st.integers(1, 4), width=st.integers(1, 4))
def test_rows_are_positions_in_reading_order(batch: int, dim: int, height: int, width: int) -> None:
    latents = torch.randn(batch, dim, height, width)
    rows = to_rows(latents)
    assert rows.shape == (batch * height * width, dim)
    b, y, x = batch - 1, height - 1, width // 2
    assert torch.equal(rows[(b * height + y) * width + x], latents[b, :, y, x])
    assert torch.equal(from_rows(rows, (batch, height, width)), latents)


def test_rows_are_float32() -> None:
    assert to_rows(torch.zeros(1, 2, 3, 4, dtype=torch.bfloat16)).dtype == torch.float32


def test_straight_through_has_the_value_of_one_and_the_gradient_of_the_other() -> None:
    latents = (1e4 * torch.randn(50, 3)).requires_grad_()
    quantized = 1e-4 * torch.randn(50, 3)  # z + (e - z) in floating point would lose these
    quantized.requires_grad_()
    weights = torch.randn(50, 3)
    value = straight_through(latents, quantized)
    (value * weights).sum().backward()
    assert torch.equal(value, quantized)
    assert torch.equal(latents.grad, weights)
    assert quantized.grad is None


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 5), dim=st.integers(1, 6), seed=st.integers(0, 2**16))
def test_the_rotation_trick_turns_the_gradient_as_it_would_turn_the_latent(count: int, dim: int, seed: int) -> None:
    """Section 4.2 with whole matrices: R z / |z| = e / |e|, the value is e and the gradient |e| / |z| R^T g."""
    torch.manual_seed(seed)
    latents = torch.randn(count, dim, dtype=torch.float64, requires_grad=True)
    quantized = torch.randn(count, dim, dtype=torch.float64)
    weights = torch.randn(count, dim, dtype=torch.float64)
    value = rotation_trick(latents, quantized)
    (value * weights).sum().backward()
    assert torch.equal(value, quantized)
    assert latents.grad is not None
    for z, e, gradient, weight in zip(latents.detach(), quantized, latents.grad, weights, strict=True):
        unit_z, unit_e = z / z.norm(), e / e.norm()
        if (unit_z + unit_e).norm() < 1e-3:
            continue  # nearly opposite: no plane to turn in
        r = (unit_z + unit_e) / (unit_z + unit_e).norm()
        turn = torch.eye(dim, dtype=torch.float64) - 2 * torch.outer(r, r) + 2 * torch.outer(unit_e, unit_z)
        torch.testing.assert_close(turn @ unit_z, unit_e)
        torch.testing.assert_close(turn @ turn.T, torch.eye(dim, dtype=torch.float64))
        torch.testing.assert_close(gradient, e.norm() / z.norm() * turn.T @ weight)


def test_the_rotation_trick_is_the_librarys() -> None:
    """Values and gradients; the library's value is e but for rounding, ours is e."""
    torch.manual_seed(0)
    latents, quantized, weights = torch.randn(50, 6, requires_grad=True), torch.randn(50, 6), torch.randn(50, 6)
    ours, theirs = rotation_trick(latents, quantized), rotate_to(latents, quantized)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad((ours * weights).sum(), latents)
    (expected,) = torch.autograd.grad((theirs * weights).sum(), latents)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-5)


def test_entropy_has_a_slope_where_a_probability_is_zero() -> None:
    probabilities = torch.tensor([0.5, 0.5, 0.0], requires_grad=True)
    assert entropy(probabilities).item() == pytest.approx(math.log(2))
    entropy(probabilities).backward()
    assert probabilities.grad is not None
    assert probabilities.grad[:2].tolist() == pytest.approx([math.log(2) - 1] * 2)
    assert probabilities.grad.isfinite().all()


def test_perplexity_counts_codes_in_even_use() -> None:
    assert perplexity(torch.tensor([5.0, 5.0, 0.0, 5.0])).item() == pytest.approx(3)
    assert perplexity(torch.tensor([0.0, 7.0])).item() == pytest.approx(1)
    assert perplexity(torch.zeros(4)).item() == pytest.approx(1)
    uneven = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert perplexity(torch.tensor([30, 10])).item() == pytest.approx(math.exp(uneven))
