from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from tests.quantizers.methods import METHODS, SMALL, rows_of
from vqtok.quantizers import ProductQuantizer, VectorQuantizer
from vqtok.quantizers.base import to_rows

SHAPE, SIZE, NUMBER = (2, 6, 2, 4), 5, 3


def make(**each: Any) -> ProductQuantizer:
    torch.manual_seed(0)
    plain = {"type": "vq", "codebook_size": SIZE, "code_dim": 2, "init": "normal", "restart_threshold": 0.0}
    return ProductQuantizer(num_codebooks=NUMBER, each=plain | each)


def test_values_and_gradients_by_brute_force() -> None:
    """Group by group in float64, one row and one code at a time; the loss is the mean over the groups."""
    quantizer = make(beta=0.25)
    latents, weights = torch.randn(SHAPE, requires_grad=True), torch.randn(SHAPE)
    output = quantizer(latents)
    (output.loss + (weights * output.quantized).sum()).backward()
    z, w = rows_of(latents), rows_of(weights)
    quantized, expected_dz, loss = np.zeros_like(z), w.copy(), 0.0
    for group in range(NUMBER):
        part = quantizer.members()[group]
        assert isinstance(part, VectorQuantizer)
        e, columns = part.codebook.detach().double().numpy(), slice(2 * group, 2 * group + 2)
        expected_de = np.zeros_like(e)
        for row, vector in enumerate(z[:, columns]):
            code = int(((e - vector) ** 2).sum(axis=1).argmin())
            assert output.codes.view(-1, NUMBER)[row, group] == code
            quantized[row, columns] = e[code]
            error = 2 * (vector - e[code]) / (z.shape[0] * 2) / NUMBER
            expected_dz[row, columns] += 0.25 * error
            expected_de[code] -= error
            loss += 1.25 * ((vector - e[code]) ** 2).sum() / (z.shape[0] * 2) / NUMBER
        assert part.codebook.grad is not None
        np.testing.assert_allclose(part.codebook.grad.numpy(), expected_de, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(rows_of(output.quantized), quantized, rtol=1e-6)
    assert latents.grad is not None
    np.testing.assert_allclose(rows_of(latents.grad), expected_dz, rtol=1e-5, atol=1e-7)
    assert output.loss.item() == pytest.approx(loss, rel=1e-5)
    distortion = ((z - quantized) ** 2).sum(axis=1)
    np.testing.assert_allclose(quantizer.distortion(latents).flatten().numpy(), distortion, rtol=1e-5)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("product", "residual")])
def test_it_is_its_parts_side_by_side(method: str) -> None:
    torch.manual_seed(0)
    quantizer = ProductQuantizer(num_codebooks=2, each={"type": method, **SMALL[method]})
    parts = copy.deepcopy([quantizer.members()[0], quantizer.members()[1]])
    latents = torch.randn(2, quantizer.code_dim, 3, 4)
    torch.manual_seed(1)
    output = quantizer(latents)
    torch.manual_seed(1)
    alone = [part(group) for part, group in zip(parts, latents.chunk(2, dim=1), strict=True)]
    assert torch.equal(output.quantized, torch.cat([part.quantized for part in alone], dim=1))
    assert torch.equal(output.codes, torch.stack([part.codes for part in alone], dim=-1))
    torch.testing.assert_close(output.loss, (alone[0].loss + alone[1].loss) / 2)
    for name, value in output.metrics.items():
        torch.testing.assert_close(value, (alone[0].metrics[name] + alone[1].metrics[name]) / 2)


def test_the_codebooks_are_apart() -> None:
    quantizer = make(init="data", type="ema")
    quantizer(torch.randn(SHAPE))
    first, second = quantizer.members()[0], quantizer.members()[1]
    assert not torch.equal(first.codebook, second.codebook)


def test_a_code_of_minus_one_is_nothing() -> None:
    quantizer = make()
    codes = quantizer.encode(torch.randn(SHAPE))
    whole = to_rows(quantizer.decode(codes))
    codes[..., 1] = -1
    without = to_rows(quantizer.decode(codes))
    assert torch.equal(without[:, 2:4], torch.zeros(len(without), 2))
    assert torch.equal(without[:, [0, 1, 4, 5]], whole[:, [0, 1, 4, 5]])


def test_the_grid_of_the_cifar_10_experiment() -> None:
    """8x8x10 discrete latents: van den Oord et al. 2017, section 4.1."""
    quantizer = ProductQuantizer(num_codebooks=10, each={"type": "ema", "codebook_size": 512, "code_dim": 4})
    assert quantizer(torch.randn(1, 40, 8, 8)).codes.shape == (1, 8, 8, 10)
