from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from vector_quantize_pytorch import SimVQ

from tests.quantizers.methods import rows_of
from vqtok.quantizers import SimVQuantizer

SHAPE, SIZE = (3, 4, 2, 5), 6


def make(**options: Any) -> SimVQuantizer:
    torch.manual_seed(0)
    quantizer = SimVQuantizer(codebook_size=SIZE, code_dim=SHAPE[1], init="normal", **options)
    with torch.no_grad():
        quantizer.codebook_map += 0.3 * torch.randn_like(quantizer.codebook_map)
    return quantizer


@pytest.mark.parametrize("beta", [0.0, 0.25, 2.0])
def test_values_and_gradients_by_hand(beta: float) -> None:
    """With H the one-hot choice: e = H C W, L = mean (sg[z] - e)^2 + beta mean (z - sg[e])^2, dL/dW = (H C)^T dL/de."""
    quantizer = make(beta=beta)
    latents, weights = torch.randn(SHAPE, requires_grad=True), torch.randn(SHAPE)
    output = quantizer(latents)
    (output.loss + (weights * output.quantized).sum()).backward()

    z, c = rows_of(latents), quantizer.codebook.double().numpy()
    mapped = c @ quantizer.codebook_map.detach().double().numpy()
    codes = np.array([((mapped - row) ** 2).sum(axis=1).argmin() for row in z])
    chosen = np.eye(SIZE)[codes]
    e = chosen @ mapped
    np.testing.assert_array_equal(output.codes.flatten().numpy(), codes)
    np.testing.assert_allclose(rows_of(output.quantized), e, rtol=1e-5, atol=1e-6)
    assert output.loss.item() == pytest.approx((1 + beta) * ((z - e) ** 2).mean(), rel=1e-5)
    d_map = (chosen @ c).T @ (2 * (e - z) / z.size)
    np.testing.assert_allclose(quantizer.codebook_map.grad.numpy(), d_map, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        rows_of(latents.grad), rows_of(weights) + beta * 2 * (z - e) / z.size, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("rotation", [False, True])
def test_against_the_library(rotation: bool) -> None:
    quantizer = make(gradient="rotation" if rotation else "straight-through")
    library = SimVQ(dim=SHAPE[1], codebook_size=SIZE, channel_first=True, rotation_trick=rotation)
    library.frozen_codebook.copy_(quantizer.codebook)
    with torch.no_grad():
        library.code_transform.weight.copy_(quantizer.codebook_map.t())
    latents, weights = torch.randn(SHAPE, requires_grad=True), torch.randn(SHAPE)
    output = quantizer(latents)
    ours = torch.autograd.grad(
        output.loss + (weights * output.quantized).sum(), [latents, quantizer.codebook_map], retain_graph=True
    )
    quantized, codes, loss = library(latents)
    wanted = [latents, library.code_transform.weight]
    theirs = torch.autograd.grad(loss + (weights * quantized).sum(), wanted)
    assert torch.equal(output.codes, codes)
    torch.testing.assert_close(output.quantized, quantized, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.loss, loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours[1], theirs[1].t(), rtol=1e-5, atol=1e-5)


def test_a_step_for_one_code_moves_all_and_the_coefficients_stay() -> None:
    quantizer = make()
    coefficients, before = quantizer.codebook.clone(), quantizer.embeddings().detach().clone()
    latents = quantizer.decode(torch.full((1, 1, 1), 2)).detach() + 0.01
    assert quantizer.encode(latents).flatten().tolist() == [2]
    quantizer(latents).loss.backward()
    with torch.no_grad():
        quantizer.codebook_map -= quantizer.codebook_map.grad
    assert torch.equal(quantizer.codebook, coefficients)
    assert (quantizer.embeddings() - before).norm(dim=1).min() > 0
    assert [name for name, _ in quantizer.named_parameters()] == ["codebook_map"]
