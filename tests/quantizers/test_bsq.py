from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize
from vector_quantize_pytorch import LFQ

from vqtok.errors import ConfigurationError
from vqtok.quantizers import BinarySphericalQuantizer
from vqtok.quantizers.bsq import on_sphere


def make(**options: Any) -> BinarySphericalQuantizer:
    return BinarySphericalQuantizer(**({"codebook_size": 16} | options))


def corners(bits: int) -> torch.Tensor:
    """Every code of {-1, 1}^D / sqrt(D) in order, float64 (2^D, D): bit d of a code is dimension d."""
    signs = torch.tensor([[1.0 if code >> d & 1 else -1.0 for d in range(bits)] for code in range(2**bits)])
    return signs.double() / math.sqrt(bits)


@settings(max_examples=25, deadline=None)
@given(bits=st.integers(1, 7), tau=st.sampled_from([0.5, 2.0, 20.0]), seed=st.integers(0, 2**16))
def test_values_and_gradients_by_hand(bits: int, tau: float, seed: int) -> None:
    """The soft assignment over all codes in float64; the entropy of its mean is that of the mean's bits, added up."""
    torch.manual_seed(seed)
    beta, weight, gamma = 0.3, 0.7, 1.5
    options = {"beta": beta, "entropy_weight": weight, "diversity_gamma": gamma, "inverse_temperature": tau}
    quantizer = make(codebook_size=2**bits, **options)
    latents = torch.randn(2, bits, 3, 4, requires_grad=True)
    weights = torch.randn(latents.shape)
    output = quantizer(latents)
    (output.loss + (output.quantized * weights).sum()).backward()

    exact = latents.detach().double().requires_grad_()
    c = corners(bits)
    u = normalize(exact, dim=1).permute(0, 2, 3, 1).reshape(-1, bits)
    q = (tau * u @ c.t()).softmax(dim=1)
    codes = (u @ c.t()).argmax(dim=1)
    commitment = (u - c[codes]).square().sum(dim=1).mean()
    code_entropy, mean = torch.special.entr(q).sum(dim=1).mean(), q.mean(dim=0)
    ones = torch.stack([mean[c[:, bit] > 0].sum() for bit in range(bits)])
    use_entropy = (torch.special.entr(ones) + torch.special.entr(1 - ones)).sum()
    loss = beta * commitment + weight * (code_entropy - gamma * use_entropy)
    (loss + (u * weights.permute(0, 2, 3, 1).reshape(-1, bits)).sum()).backward()

    assert use_entropy >= torch.special.entr(mean).sum() - 1e-9
    assert torch.equal(output.codes.flatten(), codes)
    vectors = output.quantized.permute(0, 2, 3, 1).reshape(-1, bits).double()
    torch.testing.assert_close(vectors, c[codes], rtol=0, atol=1e-6)
    assert output.loss.item() == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
    expected = {"commitment": commitment, "code_entropy": code_entropy, "use_entropy": use_entropy}
    assert output.metrics.keys() == expected.keys()
    for name, value in expected.items():
        assert output.metrics[name].item() == pytest.approx(value.item(), rel=1e-5, abs=1e-6)
    assert latents.grad is not None and exact.grad is not None
    torch.testing.assert_close(latents.grad.double(), exact.grad, rtol=1e-4, atol=1e-5)
    distances = (u - c[codes]).square().sum(dim=1)
    torch.testing.assert_close(quantizer.distortion(latents).flatten().double(), distances, rtol=1e-4, atol=1e-6)
    assert distances.max() < 2 - 2 / math.sqrt(bits) + 1e-6 or bits == 1


@pytest.mark.parametrize("rows", [1, 32])
@pytest.mark.parametrize("size", [4, 16, 64])
def test_against_the_library(size: int, rows: int) -> None:
    """Its inverse temperature is half of tau, as in the paper's code, and its first dimension the most significant bit.

    It takes the entropy of the mean over all codes, where the paper adds those of the bits: equal for a single row,
    which the test of the loss takes, and less for many.
    """
    torch.manual_seed(0)
    bits, tau = size.bit_length() - 1, 3.0
    sized = {"codebook_size": size, "beta": 0.25, "entropy_weight": 0.1, "inverse_temperature": tau}
    quantizer = make(**sized)
    library = LFQ(codebook_size=size, spherical=True, commitment_loss_weight=0.25 * bits, entropy_loss_weight=0.1)
    latents = torch.randn(rows, bits, 1, 1, requires_grad=True)
    weights = torch.randn(latents.shape)

    output = quantizer(latents)
    (quantized, codes, loss), parts = library(latents, inv_temperature=tau / 2, return_loss_breakdown=True)
    torch.testing.assert_close(output.quantized, quantized, rtol=0, atol=1e-6)
    assert torch.equal(output.codes, sum((codes.long() >> bit & 1) << (bits - 1 - bit) for bit in range(bits)))
    torch.testing.assert_close(output.metrics["code_entropy"], parts.per_sample_entropy, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.metrics["commitment"], parts.commitment * bits, rtol=1e-5, atol=1e-5)
    assert output.metrics["use_entropy"] >= parts.batch_entropy - 1e-5
    if rows > 1:
        quantizer = make(**sized, diversity_gamma=0.0)
        library.diversity_gamma = 0.0
        output, (quantized, _, loss) = quantizer(latents), library(latents, inv_temperature=tau / 2)
    torch.testing.assert_close(output.loss, loss, rtol=1e-5, atol=1e-5)
    (ours,) = torch.autograd.grad(output.loss + (output.quantized * weights).sum(), latents)
    (theirs,) = torch.autograd.grad(loss + (quantized * weights).sum(), latents)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1.0, 1e15, 1e30])
def test_the_sphere_is_reached_from_anywhere(size: float) -> None:
    torch.manual_seed(0)
    directions, weights = torch.randn(2, 5, 3, 3), torch.randn(2, 5, 3, 3)
    latents = (size * directions).requires_grad_()
    placed = on_sphere(latents)
    (placed * weights).sum().backward()
    exact = latents.detach().double().requires_grad_()
    expected = exact / exact.square().sum(dim=1, keepdim=True).sqrt()
    (expected * weights).sum().backward()
    torch.testing.assert_close(placed.double(), expected, rtol=1e-5, atol=1e-6)
    assert latents.grad is not None and exact.grad is not None
    torch.testing.assert_close(size * latents.grad.double(), size * exact.grad, rtol=1e-4, atol=1e-5)


def test_latents_of_zeros_have_a_code_and_a_finite_gradient() -> None:
    latents = torch.zeros(1, 4, 1, 2, requires_grad=True)
    output = make(beta=0.25)(latents)
    (output.loss + output.quantized.sum()).backward()
    assert output.codes.tolist() == [[[15, 15]]]
    assert output.quantized.unique().tolist() == [0.5]
    assert latents.grad is not None and latents.grad.isfinite().all()


def test_many_bits_cost_no_more_than_their_number() -> None:
    quantizer = make(codebook_size=2**40)
    latents = torch.randn(2, 40, 3, 3)
    output = quantizer(latents)
    assert torch.equal(quantizer.decode(output.codes), output.quantized)
    assert int(output.codes.min()) >= 0 and 2**32 < int(output.codes.max()) < 2**40


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_options_that_make_no_sense_are_refused(value: float) -> None:
    with pytest.raises(
        ConfigurationError, match=f"quantizer.inverse_temperature must be a number above 0.*, got {value}"
    ):
        make(inverse_temperature=value)
