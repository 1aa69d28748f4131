from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.quantizers.methods import rows_of
from vqtok.quantizers import VectorQuantizer

BATCH, DIM, HEIGHT, WIDTH, SIZE = 3, 4, 2, 5, 6


def make(beta: float = 0.25) -> VectorQuantizer:
    torch.manual_seed(0)
    return VectorQuantizer(codebook_size=SIZE, code_dim=DIM, beta=beta, init="normal", restart_threshold=0.0)


def gradients(quantizer: VectorQuantizer, through: float) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Gradients of the quantizer's loss plus `through` times a fixed linear function of what it gives out."""
    torch.manual_seed(1)
    latents = torch.randn(BATCH, DIM, HEIGHT, WIDTH, requires_grad=True)
    weights = torch.randn(BATCH, DIM, HEIGHT, WIDTH)
    output = quantizer(latents)
    (output.loss + through * (weights * output.quantized).sum()).backward()
    assert latents.grad is not None and quantizer.codebook.grad is not None
    known = {
        "z": rows_of(latents),
        "e": quantizer.codebook.detach().double().numpy(),
        "codes": output.codes.flatten().numpy(),
        "weights": rows_of(weights),
        "loss": output.loss.detach().numpy(),
        "codebook": output.metrics["codebook"].numpy(),
        "commitment": output.metrics["commitment"].numpy(),
    }
    return rows_of(latents.grad), quantizer.codebook.grad.double().numpy(), known


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("beta", [0.25, 0.0, 3.0])
def test_gradients_are_those_of_equation_3(beta: float, training: bool) -> None:
    """L = |sg[z] - e|^2 + beta |z - sg[e]|^2, means over all elements, and z + sg[e - z] towards the decoder."""
    dz, de, known = gradients(make(beta).train(training), through=1.0)
    z, e, codes = known["z"], known["e"], known["codes"]
    elements = z.size
    expected_dz = known["weights"] + beta * 2 * (z - e[codes]) / elements
    expected_de = np.zeros_like(e)
    for position, code in enumerate(codes):
        expected_de[code] += 2 * (e[code] - z[position]) / elements
    np.testing.assert_allclose(dz, expected_dz, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(de, expected_de, rtol=1e-5, atol=1e-7)


def test_beta_is_a_quarter_and_weighs_the_term_of_the_encoder() -> None:
    assert VectorQuantizer().options.beta == 0.25
    dz, de, known = gradients(make(beta=0.25), through=0.0)
    dz_of_one, de_of_one, _ = gradients(make(beta=1.0), through=0.0)
    np.testing.assert_allclose(dz, dz_of_one / 4, rtol=1e-6)
    np.testing.assert_array_equal(de, de_of_one)
    squares = ((known["z"] - known["e"][known["codes"]]) ** 2).mean()
    assert known["codebook"] == pytest.approx(squares)
    assert known["commitment"] == pytest.approx(squares)
    assert known["loss"] == pytest.approx(1.25 * squares)


def test_the_decoder_sends_no_gradient_to_the_codebook() -> None:
    _, de, _ = gradients(make(), through=1000.0)
    _, de_alone, _ = gradients(make(), through=0.0)
    np.testing.assert_array_equal(de, de_alone)


def test_gradient_descent_moves_codes_to_the_means_of_their_latents() -> None:
    """The codebook term alone is k-means: from fixed latents every used code ends at the mean of its rows."""
    quantizer = make()
    latents = torch.randn(8, DIM, 4, 4)
    optimizer = torch.optim.SGD([quantizer.codebook], lr=8.0)
    for _ in range(200):
        optimizer.zero_grad()
        output = quantizer(latents)
        output.loss.backward()
        optimizer.step()
    codes, rows = output.codes.flatten(), latents.permute(0, 2, 3, 1).reshape(-1, DIM)
    for code in codes.unique():
        torch.testing.assert_close(quantizer.codebook[code].detach(), rows[codes == code].mean(dim=0))
