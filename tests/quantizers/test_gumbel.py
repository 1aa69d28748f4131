from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from tests.quantizers.methods import rows_of
from vqtok.quantizers import GumbelQuantizer
from vqtok.quantizers.gumbel import divergence_from_uniform

BATCH, DIM, HEIGHT, WIDTH, SIZE = 2, 3, 2, 3, 5
ROWS = BATCH * HEIGHT * WIDTH


def make(**options: Any) -> GumbelQuantizer:
    torch.manual_seed(0)
    plain = {"codebook_size": SIZE, "code_dim": DIM, "init": "normal", "restart_threshold": 0.0}
    return GumbelQuantizer(**(plain | options))


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def logits_by_hand(quantizer: GumbelQuantizer, z: np.ndarray) -> np.ndarray:
    if quantizer.options.logits == "linear":
        return z @ quantizer.to_logits.weight.detach().double().numpy().T + quantizer.to_logits.bias.detach().numpy()
    e = quantizer.codebook.detach().double().numpy()
    return -((z[:, None, :] - e[None, :, :]) ** 2).sum(axis=2)


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("logits", ["distance", "linear"])
def test_values_and_gradients_by_hand(logits: str, hard: bool) -> None:
    """y = softmax((l + g) / tau); what goes on is y E or E[argmax y], whose gradient towards l is that of y E."""
    tau, weight = 0.7, 0.3
    quantizer = make(logits=logits, hard=hard, temperature=tau, temperature_end=0.1, kl_weight=weight)
    latents = torch.randn(BATCH, DIM, HEIGHT, WIDTH, requires_grad=True)
    weights = torch.randn(BATCH, DIM, HEIGHT, WIDTH)
    torch.manual_seed(5)
    output = quantizer(latents)
    (output.loss + (weights * output.quantized).sum()).backward()
    torch.manual_seed(5)
    noise = -np.log(-np.log(torch.rand(ROWS, SIZE).double().numpy()))  # Gumbel(0, 1)

    z, e, w = rows_of(latents), quantizer.codebook.detach().double().numpy(), rows_of(weights)
    raw = logits_by_hand(quantizer, z)
    y, q = softmax((raw + noise) / tau), softmax(raw)
    codes = y.argmax(axis=1)
    kl = (q * np.log(q)).sum(axis=1).mean() + math.log(SIZE)
    np.testing.assert_array_equal(output.codes.flatten().numpy(), raw.argmax(axis=1))  # those of evaluation
    np.testing.assert_allclose(rows_of(output.quantized), e[codes] if hard else y @ e, rtol=1e-5, atol=1e-6)
    assert output.metrics["kl"].item() == pytest.approx(kl, rel=1e-5)
    assert output.loss.item() == pytest.approx(weight * kl, rel=1e-5)
    assert output.metrics["temperature"].item() == pytest.approx(tau)

    dy = w @ e.T
    d_logits = y * (dy - (y * dy).sum(axis=1, keepdims=True)) / tau
    d_logits += weight * q * (np.log(q) - (q * np.log(q)).sum(axis=1, keepdims=True)) / ROWS
    d_codebook = (np.eye(SIZE)[codes] if hard else y).T @ w
    if logits == "linear":
        d_latents = d_logits @ quantizer.to_logits.weight.detach().double().numpy()
        np.testing.assert_allclose(quantizer.to_logits.weight.grad.numpy(), d_logits.T @ z, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(quantizer.to_logits.bias.grad.numpy(), d_logits.sum(axis=0), rtol=1e-4, atol=1e-6)
    else:
        differences = z[:, None, :] - e[None, :, :]
        d_latents = (-2 * d_logits[:, :, None] * differences).sum(axis=1)
        d_codebook = d_codebook + (2 * d_logits[:, :, None] * differences).sum(axis=0)
    np.testing.assert_allclose(rows_of(latents.grad), d_latents, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(quantizer.codebook.grad.numpy(), d_codebook, rtol=1e-4, atol=1e-6)


def test_codes_are_sampled_in_the_proportions_of_their_logits() -> None:
    quantizer = make(temperature=0.1, temperature_end=0.1)
    latents = torch.randn(1, DIM, 1, 1).expand(1, DIM, 200, 200)
    sampled = torch.cdist(quantizer(latents).quantized[0].flatten(1).T, quantizer.codebook).argmin(dim=1)
    shares = torch.bincount(sampled, minlength=SIZE) / 40_000
    expected = softmax(logits_by_hand(quantizer, rows_of(latents[:, :, :1, :1])))[0]
    np.testing.assert_allclose(shares.numpy(), expected, atol=0.01)


def test_the_divergence_is_zero_where_all_codes_are_alike_and_log_k_where_one_is_sure() -> None:
    quantizer = make(logits="linear").eval()
    with torch.no_grad():
        quantizer.to_logits.weight.zero_()
    latents = torch.randn(BATCH, DIM, HEIGHT, WIDTH)
    assert quantizer(latents).metrics["kl"].item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        quantizer.to_logits.bias[2] = 100.0
    assert quantizer(latents).metrics["kl"].item() == pytest.approx(math.log(SIZE))


@pytest.mark.parametrize("logits", ["distance", "linear"])
def test_evaluation_takes_the_most_probable_code(logits: str) -> None:
    quantizer = make(logits=logits, hard=False).eval()
    latents = torch.randn(BATCH, DIM, HEIGHT, WIDTH)
    state = torch.get_rng_state()
    output = quantizer(latents)
    assert torch.equal(torch.get_rng_state(), state)
    best = logits_by_hand(quantizer, rows_of(latents)).argmax(axis=1)
    np.testing.assert_array_equal(output.codes.flatten().numpy(), best)
    assert torch.equal(output.quantized, quantizer.codebook[output.codes].permute(0, 3, 1, 2))
    assert "temperature" not in output.metrics


def test_the_temperature_falls_along_an_exponential_and_stays() -> None:
    quantizer = make(temperature=1.0, temperature_end=0.0625, temperature_steps=4)
    latents = torch.randn(BATCH, DIM, HEIGHT, WIDTH)
    seen = [quantizer(latents).metrics["temperature"].item() for _ in range(7)]
    assert seen == pytest.approx([1, 0.5, 0.25, 0.125, 0.0625, 0.0625, 0.0625])
    quantizer.eval()(latents)
    assert int(quantizer.noise.batches_seen) == 7


def test_a_hard_sample_hands_on_one_code_exactly() -> None:
    quantizer = make(hard=True, init="data", restart_threshold=0.9)
    latents = torch.randn(BATCH, DIM, HEIGHT, WIDTH)
    quantizer(latents)
    before = quantizer.codebook.detach().clone()
    vectors = quantizer(latents).quantized.permute(0, 2, 3, 1).reshape(-1, 1, DIM)
    assert bool((vectors == before).all(dim=2).any(dim=1).all())


def test_use_is_counted_without_the_noise_of_sampling() -> None:
    """At these logits nearly every code is sampled, and evaluation takes one."""
    quantizer = make(logits="linear", temperature=1.0)
    with torch.no_grad():
        quantizer.to_logits.weight.zero_()
        quantizer.to_logits.bias.copy_(torch.tensor([0.0, 0.0, 0.1, 0.0, 0.0]))
    output = quantizer(torch.randn(8, DIM, 4, 4))
    assert len(output.quantized.permute(0, 2, 3, 1).reshape(-1, DIM).unique(dim=0)) == SIZE
    assert output.codes.unique().tolist() == [2]


def test_divergence_is_that_of_autograd_and_finite_where_a_latent_is_sure_of_its_code() -> None:
    logits = torch.randn(6, SIZE, dtype=torch.float64) * 10
    logits[-1] = torch.tensor([0.0, -1e5, -1e5, -1e5, -1e5])
    found, expected = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    divergence = divergence_from_uniform(found)
    log_q = expected.log_softmax(dim=1)
    by_hand = (log_q.exp() * log_q).sum(dim=1) + math.log(SIZE)
    (divergence * torch.arange(6)).sum().backward()
    (by_hand * torch.arange(6)).sum().backward()
    torch.testing.assert_close(divergence, by_hand)
    assert divergence[-1].item() == pytest.approx(math.log(SIZE))
    torch.testing.assert_close(found.grad, expected.grad)


def test_a_second_derivative_that_is_not_there_is_refused() -> None:
    logits = torch.randn(2, SIZE, requires_grad=True)
    (gradient,) = torch.autograd.grad(divergence_from_uniform(logits).square().sum(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
