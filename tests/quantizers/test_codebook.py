from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from vector_quantize_pytorch import VectorQuantize

from tests.quantizers.methods import rows_of
from vqtok.quantizers import (
    EMAQuantizer,
    GumbelQuantizer,
    IndexBackpropagationQuantizer,
    SimVQuantizer,
    VectorQuantizer,
)
from vqtok.quantizers.base import BatchPart, to_rows
from vqtok.quantizers.codebook import CodebookQuantizer

METHODS = [EMAQuantizer, GumbelQuantizer, IndexBackpropagationQuantizer, SimVQuantizer, VectorQuantizer]


def make(method: type[CodebookQuantizer], **options: Any) -> CodebookQuantizer:
    torch.manual_seed(0)
    return method(**({"codebook_size": 8, "code_dim": 3} | options))


@pytest.mark.parametrize("method", METHODS)
def test_codes_start_on_latents_of_the_first_batch_one_from_each_part_of_it(method: type[CodebookQuantizer]) -> None:
    quantizer = make(method, init="data")
    latents = torch.randn(4, 3, 4, 4)
    rows = to_rows(latents)
    quantizer.initialize_once(rows, BatchPart())
    found = [int((rows == code).all(dim=1).nonzero()) for code in quantizer.codebook.detach()]
    assert [row // 8 for row in found] == list(range(8))  # 64 rows, 8 codes: code k from the k-th eighth
    assert bool(quantizer.initialized)


@pytest.mark.parametrize("method", METHODS)
def test_only_the_first_training_batch_starts_the_codes(method: type[CodebookQuantizer]) -> None:
    quantizer = make(method, init="data").eval()
    at_first = quantizer.codebook.detach().clone()
    quantizer(torch.randn(4, 3, 4, 4))
    assert torch.equal(quantizer.codebook, at_first)
    quantizer.train()
    quantizer.initialize_once(torch.randn(64, 3), BatchPart())
    started = quantizer.codebook.detach().clone()
    assert not torch.equal(started, at_first)
    quantizer.initialize_once(torch.randn(64, 3), BatchPart())
    assert torch.equal(quantizer.codebook, started)
    loaded = make(method, init="data")
    loaded.load_state_dict(quantizer.state_dict())
    loaded.initialize_once(torch.randn(64, 3), BatchPart())
    assert torch.equal(loaded.codebook, started)


def test_a_normal_start_stays_where_it_was() -> None:
    quantizer = make(EMAQuantizer, init="normal", codebook_size=4096, code_dim=16)
    at_first = quantizer.codebook.clone()
    assert at_first.std().item() == pytest.approx(1 / 4, rel=0.02)
    quantizer.initialize_once(torch.randn(64, 16), BatchPart())
    assert torch.equal(quantizer.codebook, at_first)
    torch.testing.assert_close(quantizer.code_sums, at_first * 64 / 4096)  # as if each had been used evenly


def test_cosine_codes_are_the_librarys_over_several_steps() -> None:
    """Moving averages of unit vectors, values, codes, commitment and the gradient through the normalisation."""
    quantizer = make(EMAQuantizer, metric="cosine", init="normal", beta=1.0, decay=0.5, restart_threshold=0.0)
    library = VectorQuantize(dim=3, codebook_size=8, decay=0.5, use_cosine_sim=True, rotation_trick=False).train()
    assert isinstance(quantizer, EMAQuantizer)
    quantizer.noise.batches_seen.fill_(1000)  # in the first batches the decay is less
    quantizer.codebook.copy_(torch.nn.functional.normalize(quantizer.codebook, dim=1))
    library._codebook.embed.data.copy_(quantizer.codebook[None])
    even = 2 * 4 * 5 / 8
    library._codebook.embed_avg.copy_(even * quantizer.codebook[None])
    library._codebook.cluster_size.fill_(even)
    for _ in range(4):
        latents, weights = torch.randn(2, 3, 4, 5, requires_grad=True), torch.randn(2, 3, 4, 5)
        output = quantizer(latents)
        rows, codes, loss = library(to_rows(latents)[None])
        assert torch.equal(output.codes.flatten(), codes[0])
        torch.testing.assert_close(to_rows(output.quantized), rows[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(output.loss, loss.sum(), rtol=1e-5, atol=1e-5)
        (ours,) = torch.autograd.grad(output.loss + (weights * output.quantized).sum(), latents)
        (theirs,) = torch.autograd.grad(loss.sum() + (to_rows(weights) * rows[0]).sum(), latents)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(quantizer.embeddings(), library._codebook.embed[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_cosine_codes_do_not_see_lengths(method: type[CodebookQuantizer]) -> None:
    quantizer = make(method, metric="cosine").eval()
    latents = torch.randn(2, 3, 4, 4)
    lengths = torch.rand(2, 1, 4, 4) + 0.1
    assert torch.equal(quantizer.encode(latents), quantizer.encode(lengths * latents))
    norms = quantizer(latents).quantized.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    directions = torch.nn.functional.normalize(quantizer.embeddings(), dim=1).detach().double().numpy()
    closest = (rows_of(latents) @ directions.T).argmax(axis=1)
    np.testing.assert_array_equal(quantizer.encode(latents).flatten().numpy(), closest)


@pytest.mark.parametrize("method", METHODS)
def test_a_projection_compares_in_fewer_dimensions_and_comes_back(method: type[CodebookQuantizer]) -> None:
    quantizer = make(method, projection_dim=2, metric="euclidean").eval()
    latents = torch.randn(2, 3, 4, 4, requires_grad=True)
    z = rows_of(latents) @ quantizer.project_in.weight.detach().double().numpy().T
    e = quantizer.embeddings().detach().double().numpy()
    assert e.shape == (8, 2)
    codes = quantizer.encode(latents).flatten().numpy()
    np.testing.assert_array_equal(codes, ((z[:, None] - e[None]) ** 2).sum(axis=2).argmin(axis=1))
    output = quantizer(latents)
    expected = e[codes] @ quantizer.project_out.weight.detach().double().numpy().T
    np.testing.assert_allclose(rows_of(output.quantized), expected, rtol=1e-5, atol=1e-6)
    distortion = ((z - e[codes]) ** 2).sum(axis=1)
    np.testing.assert_allclose(quantizer.distortion(latents).flatten().numpy(), distortion, rtol=1e-4, atol=1e-6)
    (output.loss + output.quantized.square().sum()).backward()
    for parameter in (quantizer.project_out.weight, quantizer.project_out.bias):
        assert parameter.grad is not None and parameter.grad.abs().max() > 0


def test_a_projection_learns_to_hold_codes_and_latents_together() -> None:
    """The gradient of commitment and decoder through the projection, by autograd over the equations."""
    quantizer = make(VectorQuantizer, projection_dim=2, init="normal")
    latents, weights = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 3, 4, 4)
    output = quantizer(latents)
    wanted = [latents, *quantizer.parameters()]
    ours = torch.autograd.grad(output.loss + (weights * output.quantized).sum(), wanted)
    z = quantizer.project_in(to_rows(latents))
    e = quantizer.codebook[output.codes.flatten()]
    through = quantizer.project_out(z + (e - z).detach())
    loss = (z.detach() - e).square().mean() + 0.25 * (z - e.detach()).square().mean()
    theirs = torch.autograd.grad(loss + (to_rows(weights) * through).sum(), wanted)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", [EMAQuantizer, GumbelQuantizer, SimVQuantizer, VectorQuantizer])
def test_the_entropy_term_by_hand(method: type[CodebookQuantizer]) -> None:
    """E[H(p)] - H(E[p]) with p = softmax(-|z - e|^2 / temperature), in nats; and what it adds to the gradient."""
    quantizer = make(method, entropy_weight=0.5, entropy_temperature=2.0).eval()
    plain = make(method).eval()
    latents = torch.randn(2, 3, 4, 4, requires_grad=True)
    output = quantizer(latents)
    z = to_rows(latents).double()
    p = torch.softmax(-(z[:, None] - quantizer.embeddings().double()[None]).square().sum(dim=2) / 2.0, dim=1)
    code_entropy, use = -(p * p.log()).sum(dim=1).mean(), p.mean(dim=0)
    term = code_entropy + (use * use.log()).sum()
    assert output.metrics["code_entropy"].item() == pytest.approx(code_entropy.item(), rel=1e-4)
    assert output.metrics["use_entropy"].item() == pytest.approx(-(use * use.log()).sum().item(), rel=1e-4)
    added = output.loss - plain(latents).loss
    assert added.item() == pytest.approx(0.5 * term.item(), rel=1e-3, abs=1e-6)
    ours, theirs = (torch.autograd.grad(value, latents)[0] for value in (added, 0.5 * term))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
    assert "code_entropy" not in plain(latents).metrics


def test_the_entropy_term_looks_at_no_more_rows_than_fit_but_in_time_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four rows that follow another one, whichever: every fourth would be the same columns of every grid."""
    quantizer = make(VectorQuantizer, entropy_weight=1.0, beta=0.0)
    monkeypatch.setattr("vqtok.quantizers.entropy.ASSIGNMENTS", 8 * 8)
    seen = torch.zeros(2, 4, 4)
    for _ in range(30):
        latents = torch.randn(2, 3, 4, 4, requires_grad=True)
        (learns,) = torch.autograd.grad(quantizer(latents).loss, latents)
        rows = learns.abs().sum(dim=1) > 0
        assert rows.flatten().view(8, 4).sum(dim=1).tolist() == [1] * 8
        seen += rows
    assert seen.min() > 0


def test_the_entropy_term_looks_at_every_row_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also at the last one, where rows do not come out even: 13 of 25 are looked at."""
    quantizer = make(VectorQuantizer, entropy_weight=1.0, beta=0.0)
    monkeypatch.setattr("vqtok.quantizers.entropy.ASSIGNMENTS", 8 * 13)
    seen = torch.zeros(25)
    for _ in range(400):
        latents = torch.randn(1, 3, 5, 5, requires_grad=True)
        (learns,) = torch.autograd.grad(quantizer(latents).loss, latents)
        seen += (learns.abs().sum(dim=1) > 0).flatten()
    assert (seen / 400).min() > 0.4 and (seen / 400).max() < 0.65


@pytest.mark.parametrize("init", ["data", "kmeans"])
def test_codes_that_outnumber_the_latents_start_apart(init: str) -> None:
    """Copies would never be told apart again where codes move together, as those of simvq do."""
    quantizer = SimVQuantizer(codebook_size=64, code_dim=5, init=init)
    torch.manual_seed(0)
    quantizer(torch.randn(1, 5, 4, 4))
    assert len(quantizer.codebook.round(decimals=3).unique(dim=0)) == 64


def test_codes_start_on_data_again_where_an_untrained_state_was_loaded() -> None:
    """Into a quantizer that has been trained, as when a search over settings begins anew from one state."""
    quantizer = EMAQuantizer(codebook_size=8, code_dim=3)
    untrained = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    quantizer(torch.randn(4, 3, 4, 4))
    quantizer.load_state_dict(untrained)
    latents = 50 + torch.randn(4, 3, 4, 4)
    quantizer(latents)
    assert quantizer.initialized and quantizer.codebook.min() > 40


@pytest.mark.parametrize("rows", [16, 17, 18, 31, 33])
def test_codes_start_on_different_latents_where_there_are_enough(rows: int) -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        quantizer = VectorQuantizer(codebook_size=16, code_dim=3)
        quantizer.initialize_once(torch.randn(rows, 3), BatchPart())
        assert len(quantizer.codebook.unique(dim=0)) == 16
