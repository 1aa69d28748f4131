from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize, one_hot

from tests.quantizers.methods import rows_of
from vqtok.quantizers import IndexBackpropagationQuantizer
from vqtok.quantizers.base import to_rows

SHAPE, SIZE = (2, 3, 2, 4), 5


def make(**options: Any) -> IndexBackpropagationQuantizer:
    torch.manual_seed(0)
    paper = {"metric": "dot", "temperature": 1.0, "init": "normal", "restart_threshold": 0.0}
    return IndexBackpropagationQuantizer(**({"codebook_size": SIZE, "code_dim": SHAPE[1]} | paper | options))


def affinity(z: torch.Tensor, c: torch.Tensor, metric: str) -> torch.Tensor:
    return -(z[:, None] - c[None]).square().sum(dim=2) if metric == "euclidean" else z @ c.t()


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize(("beta", "temperature"), [(0.0, 1.0), (0.25, 1.0), (2.0, 0.3)])
def test_against_the_equations_with_whole_matrices(metric: str, beta: float, temperature: float) -> None:
    """index = onehot + p - sg[p], z_q = index C and the three terms of the loss, differentiated by autograd."""
    quantizer = make(metric=metric, beta=beta, temperature=temperature)
    latents, weights = torch.randn(SHAPE, requires_grad=True), torch.randn(SHAPE)
    output = quantizer(latents)
    (output.loss + (weights * output.quantized).sum()).backward()

    leaf = to_rows(latents).detach().double().requires_grad_()
    codebook = quantizer.codebook.detach().double().requires_grad_()
    z, c = (normalize(leaf), normalize(codebook)) if metric == "cosine" else (leaf, codebook)
    p = torch.softmax(affinity(z, c, metric) / temperature, dim=1)
    chosen = one_hot(p.argmax(dim=1), SIZE).double()
    index = chosen + p - p.detach()
    z_q, e = index @ c, chosen @ c
    terms = {
        "quantization": (z_q - z).square().mean(),
        "commitment": (e.detach() - z).square().mean(),
        "codebook": (e - z.detach()).square().mean(),
    }
    loss = terms["quantization"] + terms["commitment"] + beta * terms["codebook"]
    (loss + (to_rows(weights) * z_q).sum()).backward()
    assert torch.equal(output.codes.flatten(), p.argmax(dim=1))
    np.testing.assert_allclose(rows_of(output.quantized), e.detach().numpy(), rtol=1e-6, atol=1e-7)
    assert output.loss.item() == pytest.approx(loss.item(), rel=1e-5)
    for name, term in terms.items():
        assert output.metrics[name].item() == pytest.approx(term.item(), rel=1e-5)
    np.testing.assert_allclose(rows_of(latents.grad), leaf.grad.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(quantizer.codebook.grad.numpy(), codebook.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_every_code_gets_a_gradient_and_not_only_the_chosen() -> None:
    quantizer = make()
    output = quantizer(0.1 * torch.randn(1, SHAPE[1], 1, 1))
    output.quantized.sum().backward()
    assert len(output.codes.unique()) == 1
    assert quantizer.codebook.grad.abs().amax(dim=1).min() > 0


def test_the_code_is_that_of_the_largest_product_and_not_the_nearest() -> None:
    quantizer = make().eval()
    with torch.no_grad():
        quantizer.codebook.copy_(torch.tensor([[1.0, 0, 0], [3.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [-9.0, 0, 0]]))
    assert quantizer.encode(torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)).item() == 1


def test_the_entropy_term_is_over_products() -> None:
    quantizer = make(entropy_weight=1.0, entropy_temperature=0.5).eval()
    latents = torch.randn(SHAPE)
    p = torch.softmax(2 * to_rows(latents) @ quantizer.codebook.detach().t(), dim=1).double().numpy()
    use = p.mean(axis=0)
    metrics = quantizer(latents).metrics
    assert metrics["code_entropy"].item() == pytest.approx(-(p * np.log(p)).sum(axis=1).mean(), rel=1e-5)
    assert metrics["use_entropy"].item() == pytest.approx(-(use * np.log(use)).sum(), rel=1e-5)
