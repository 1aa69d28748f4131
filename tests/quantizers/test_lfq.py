from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_quantize_pytorch import LFQ

from vqtok.errors import ConfigurationError
from vqtok.quantizers import LookupFreeQuantizer


def make(**options: Any) -> LookupFreeQuantizer:
    return LookupFreeQuantizer(**({"codebook_size": 16, "scale": 1.0, "temperature": 2.0} | options))


def corners(bits: int) -> torch.Tensor:
    """Every code of {-1, 1}^D in order, float64 (2^D, D): bit d of a code is dimension d."""
    return torch.tensor([[1.0 if code >> d & 1 else -1.0 for d in range(bits)] for code in range(2**bits)]).double()


@settings(max_examples=25, deadline=None)
@given(
    bits=st.integers(1, 7),
    scale=st.sampled_from([0.07, 1.0]),
    temperature=st.sampled_from([0.5, 2.0, 10.0]),
    seed=st.integers(0, 2**16),
)
def test_values_and_gradients_by_hand(bits: int, scale: float, temperature: float, seed: int) -> None:
    """Section 3.1 in float64, over all codes."""
    torch.manual_seed(seed)
    beta, weight, gamma = 0.3, 0.7, 1.5
    options = {"beta": beta, "entropy_weight": weight, "diversity_gamma": gamma, "temperature": temperature}
    quantizer = make(codebook_size=2**bits, scale=scale, **options)
    latents = torch.randn(2, bits, 3, 4, requires_grad=True)
    weights = torch.randn(latents.shape)
    output = quantizer(latents)
    (output.loss + (output.quantized * weights).sum()).backward()

    exact = latents.detach().double().requires_grad_()
    z, c = exact.permute(0, 2, 3, 1).reshape(-1, bits), scale * corners(bits)
    distances = (z[:, None] - c).square().sum(dim=2)
    codes = distances.argmin(dim=1)
    p = (-distances / temperature).softmax(dim=1)
    commitment = (z - c[codes]).square().mean()
    code_entropy, use_entropy = torch.special.entr(p).sum(dim=1).mean(), torch.special.entr(p.mean(dim=0)).sum()
    loss = beta * commitment + weight * (code_entropy - gamma * use_entropy)
    (loss + (exact * weights).sum()).backward()

    assert torch.equal(output.codes.flatten(), codes)
    torch.testing.assert_close(output.quantized.permute(0, 2, 3, 1).reshape(-1, bits), c[codes].float())
    assert output.loss.item() == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
    expected = {"commitment": commitment, "code_entropy": code_entropy, "use_entropy": use_entropy}
    assert output.metrics.keys() == expected.keys()
    for name, value in expected.items():
        assert output.metrics[name].item() == pytest.approx(value.item(), rel=1e-5, abs=1e-6)
    assert latents.grad is not None and exact.grad is not None
    torch.testing.assert_close(latents.grad.double(), exact.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [2, 16, 64])
def test_against_the_library(size: int) -> None:
    """Its inverse temperature is 1 over ours. It lets the first dimension be the most significant bit of a code, the
    paper the least; and it takes the logarithm of no probability under 1e-5, so they are kept above that here."""
    torch.manual_seed(0)
    bits, temperature = size.bit_length() - 1, 4.0
    quantizer = make(codebook_size=size, beta=0.25, entropy_weight=0.1, diversity_gamma=1.5, temperature=temperature)
    library = LFQ(codebook_size=size, commitment_loss_weight=0.25, entropy_loss_weight=0.1, diversity_gamma=1.5)
    latents = (0.5 * torch.randn(2, bits, 4, 4)).requires_grad_()
    weights = torch.randn(latents.shape)

    output = quantizer(latents)
    (ours,) = torch.autograd.grad(output.loss + (output.quantized * weights).sum(), latents)
    (quantized, codes, loss), parts = library(latents, inv_temperature=1 / temperature, return_loss_breakdown=True)
    (theirs,) = torch.autograd.grad(loss + (quantized * weights).sum(), latents)

    torch.testing.assert_close(output.quantized, quantized, rtol=0, atol=1e-6)
    reversed_bits = sum((codes.long() >> bit & 1) << (bits - 1 - bit) for bit in range(bits))
    assert torch.equal(output.codes, reversed_bits)
    torch.testing.assert_close(output.loss, loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.metrics["code_entropy"], parts.per_sample_entropy, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.metrics["use_entropy"], parts.batch_entropy, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    every = torch.arange(size).view(1, 1, -1)
    reversed_every = sum((every >> bit & 1) << (bits - 1 - bit) for bit in range(bits))
    assert torch.equal(quantizer.decode(every), library.indices_to_codes(reversed_every))


def test_the_entropy_term_tells_sure_and_spread_from_unsure_and_alike() -> None:
    quantizer = make(codebook_size=4, temperature=0.01)
    spread = torch.tensor([[1.0, 1, -1, -1], [1.0, -1, 1, -1]]).view(1, 2, 2, 2)
    metrics = quantizer(spread).metrics
    assert metrics["code_entropy"].item() == pytest.approx(0, abs=1e-6)
    assert metrics["use_entropy"].item() == pytest.approx(math.log(4))
    metrics = quantizer(torch.ones(1, 2, 2, 2)).metrics
    assert metrics["use_entropy"].item() == pytest.approx(0, abs=1e-6)
    metrics = quantizer(torch.zeros(1, 2, 2, 2)).metrics
    assert metrics["code_entropy"].item() == metrics["use_entropy"].item() == pytest.approx(math.log(4))


def test_the_entropy_term_spreads_latents_over_the_codes() -> None:
    """Latents that all fall to one code, moved by nothing but the loss, fill the codebook."""
    torch.manual_seed(0)
    quantizer = make(codebook_size=16, entropy_weight=1.0, temperature=1.0)
    latents = (0.5 + 0.1 * torch.randn(4, 4, 8, 8)).requires_grad_()
    optimizer = torch.optim.Adam([latents], lr=0.05)
    assert len(quantizer.encode(latents).unique()) == 1
    for _ in range(100):
        optimizer.zero_grad()
        quantizer(latents).loss.backward()
        optimizer.step()
    assert len(quantizer.encode(latents).unique()) == 16


@pytest.mark.parametrize(("option", "value"), [("temperature", 0.0), ("temperature", math.nan), ("scale", 0.0)])
def test_options_that_make_no_sense_are_refused(option: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"quantizer.{option} must be a number above 0.*, got {value}"):
        make(**{option: value})


def test_more_codes_than_can_be_summed_over_need_no_entropy_term() -> None:
    with pytest.raises(ConfigurationError, match="at most 67,108,864, got 68,719,476,736: set entropy_weight=0, or"):
        make(codebook_size=2**36)
    quantizer = make(codebook_size=2**36, entropy_weight=0.0)
    output = quantizer(torch.randn(2, 36, 4, 4, requires_grad=True))
    output.loss.backward()
    assert output.metrics.keys() == {"commitment", "code_entropy"}
    assert torch.equal(quantizer.decode(output.codes), output.quantized)
