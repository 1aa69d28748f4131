from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_quantize_pytorch.vector_quantize_pytorch import rotate_to

from vqtok.quantizers.gradients import rotation_trick, straight_through


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
