from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from vector_quantize_pytorch import ResidualVQ

from tests.quantizers.methods import rows_of
from vqtok.quantizers import ResidualQuantizer
from vqtok.quantizers.base import from_rows, to_rows

SHAPE, SIZE, STAGES = (2, 4, 3, 5), 6, 3


def make(each: dict[str, Any] | None = None, **options: Any) -> ResidualQuantizer:
    torch.manual_seed(0)
    plain = {"type": "vq", "codebook_size": SIZE, "code_dim": SHAPE[1], "init": "normal"}
    plain |= {} if (each or {}).get("type") == "simvq" else {"restart_threshold": 0.0}
    return ResidualQuantizer(num_codebooks=STAGES, each=plain | (each or {}), **options)


def tables(quantizer: ResidualQuantizer) -> list[np.ndarray]:
    return [quantizer.stage(index).embeddings().detach().double().numpy() for index in range(STAGES)]


def by_brute_force(z: np.ndarray, books: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Algorithm 1 of Zeghidour et al. 2021: codes (N, Q), and by stage what was left before it and what it chose."""
    residual, codes, residuals, vectors = z, [], [], []
    for e in books:
        codes.append(np.array([((e - row) ** 2).sum(axis=1).argmin() for row in residual]))
        residuals.append(residual)
        vectors.append(e[codes[-1]])
        residual = residual - vectors[-1]
    return np.stack(codes, axis=1), residuals, vectors


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.25])
def test_values_and_gradients_by_brute_force(beta: float, shared: bool) -> None:
    """The sum passes its gradient once; every stage's commitment reaches the encoder, dL/dz = beta sum_i 2 (r_i - e_i).

    A known bug elsewhere let r_i depend on e_(i-1) through the straight-through estimator, so that r_2 = z - (z + sg[e
    - z]) carried no gradient at all and only the first commitment reached the encoder.
    """
    quantizer = make({"beta": beta}, shared=shared)
    latents, weights = torch.randn(SHAPE, requires_grad=True), torch.randn(SHAPE)
    output = quantizer(latents)
    (output.loss + (weights * output.quantized).sum()).backward()
    z = rows_of(latents)
    codes, residuals, vectors = by_brute_force(z, tables(quantizer))
    errors = [residual - vector for residual, vector in zip(residuals, vectors, strict=True)]
    np.testing.assert_array_equal(output.codes.view(-1, STAGES).numpy(), codes)
    np.testing.assert_allclose(rows_of(output.quantized), sum(vectors), rtol=1e-5, atol=1e-6)
    means = [(error**2).mean() for error in errors]
    assert output.loss.item() == pytest.approx((1 + beta) * np.mean(means), rel=1e-5)
    assert output.metrics["commitment"].item() == pytest.approx(np.mean(means), rel=1e-5)
    expected_dz = rows_of(weights) + sum(beta * 2 * error / z.size / STAGES for error in errors)
    assert latents.grad is not None
    np.testing.assert_allclose(rows_of(latents.grad), expected_dz, rtol=1e-4, atol=1e-7)

    gradients = [np.zeros((SIZE, SHAPE[1])) for _ in range(STAGES)]
    for stage, error in enumerate(errors):
        np.add.at(gradients[0 if shared else stage], codes[:, stage], -2 * error / z.size / STAGES)
    for stage in range(1 if shared else STAGES):
        found = quantizer.stage(stage).codebook.grad
        assert found is not None
        np.testing.assert_allclose(found.numpy(), gradients[stage], rtol=1e-4, atol=1e-7)
    distortion = ((z - sum(vectors)) ** 2).sum(axis=1)
    np.testing.assert_allclose(quantizer.distortion(latents).flatten().numpy(), distortion, rtol=1e-5)


def library_with(quantizer: ResidualQuantizer, **options: Any) -> ResidualVQ:
    library = ResidualVQ(
        dim=SHAPE[1],
        codebook_size=SIZE,
        num_quantizers=STAGES,
        decay=0.5,
        commitment_weight=1.0,
        **({"rotation_trick": False} | options),
    )
    for index, layer in enumerate(library.layers):
        layer._codebook.embed.data.copy_(quantizer.stage(index).codebook[None])
        even = SHAPE[0] * SHAPE[2] * SHAPE[3] / SIZE
        layer._codebook.embed_avg.copy_(even * quantizer.stage(index).codebook[None])
        layer._codebook.cluster_size.fill_(even)
    return library.train()


def test_against_the_library() -> None:
    """Values, codes, each stage's commitment and its gradient, and the codebooks after three steps, are the library's.

    The gradient from the decoder is not: it adds up stages that pass it on each, so that the encoder gets it Q times.
    Algorithm 1 quantizes z to one sum, whose straight-through estimator z + sg[sum - z] passes it once.
    """
    quantizer = make({"type": "ema", "beta": 1.0, "decay": 0.5})
    for stage in quantizer.members():
        stage.noise.batches_seen.fill_(1000)  # in the first batches the decay is less
    library = library_with(quantizer)
    for _ in range(3):
        latents, weights = torch.randn(SHAPE, requires_grad=True), torch.randn(SHAPE)
        output = quantizer(latents)
        rows, codes, losses = library(to_rows(latents)[None])
        quantized = from_rows(rows[0], (SHAPE[0], *SHAPE[2:]))
        assert torch.equal(output.codes.flatten(0, 2), codes[0])
        torch.testing.assert_close(output.quantized, quantized, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(output.loss, losses.mean(), rtol=1e-5, atol=1e-5)
        (ours,) = torch.autograd.grad(output.loss, latents, retain_graph=True)
        (theirs,) = torch.autograd.grad(losses.mean(), latents, retain_graph=True)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        (ours,) = torch.autograd.grad((weights * output.quantized).sum(), latents)
        (theirs,) = torch.autograd.grad((weights * quantized).sum(), latents)
        torch.testing.assert_close(ours, weights)
        torch.testing.assert_close(theirs, STAGES * weights)
        for index, layer in enumerate(library.layers):
            embed = layer._codebook.embed[0]
            torch.testing.assert_close(quantizer.stage(index).codebook, embed, rtol=1e-4, atol=1e-5)


def test_the_rotation_is_from_the_latents_to_the_sum() -> None:
    quantizer = make(gradient="rotation").eval()
    latents, weights = torch.randn(SHAPE, requires_grad=True), torch.randn(SHAPE)
    output = quantizer(latents)
    (gradient,) = torch.autograd.grad((weights * output.quantized).sum(), latents)
    ratio = output.quantized.norm(dim=1) / latents.norm(dim=1)
    torch.testing.assert_close(gradient.norm(dim=1), ratio * weights.norm(dim=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["ema", "simvq", "vq"])
@pytest.mark.parametrize("shared", [False, True])
def test_stages_that_were_left_out_are_minus_one_and_decode_to_nothing(kind: str, shared: bool) -> None:
    quantizer = make({"type": kind}, shared=shared, stage_dropout=0.7)
    seen = set()
    for _ in range(40):
        before = copy.deepcopy(quantizer)
        latents = torch.randn(SHAPE)
        output = quantizer(latents)
        used = int((output.codes >= 0).flatten(end_dim=-2).all(dim=0).sum())
        assert (output.codes[..., used:] == -1).all()
        assert torch.equal(before.decode(output.codes), output.quantized)
        assert torch.equal(before.encode(latents)[..., :used], output.codes[..., :used])
        for parameter in quantizer.parameters():
            parameter.grad = None
        output.loss.backward() if output.loss.requires_grad else None
        assert all(parameter.grad is not None for parameter in quantizer.parameters())  # data parallel training waits
        seen.add(used)
    assert seen == {1, 2, 3}
    assert (quantizer.eval().encode(latents) >= 0).all() and (quantizer(latents).codes >= 0).all()


def stages_used(quantizer: ResidualQuantizer, batches: int) -> torch.Tensor:
    """How many stages each of some batches uses."""
    used = []
    for _ in range(batches):
        used.append(quantizer.stages_used())
        quantizer.noise.batches_seen += 1
    return torch.stack(used)


def test_stage_dropout_leaves_out_as_many_batches_as_it_says() -> None:
    used = stages_used(make({"type": "ema"}, stage_dropout=0.25), 4000)
    assert (used < STAGES).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert (used == 1).sum().item() == pytest.approx((used == 2).sum().item(), rel=0.2)


def test_stage_dropout_goes_on_where_a_run_stopped() -> None:
    whole, first = make(stage_dropout=0.5), make(stage_dropout=0.5)
    used = stages_used(whole, 30)
    assert torch.equal(stages_used(first, 15), used[:15])
    resumed = make(stage_dropout=0.5)
    resumed.load_state_dict(first.state_dict())
    assert torch.equal(stages_used(resumed, 15), used[15:])


@pytest.mark.parametrize("init", ["kmeans", "data"])
def test_each_stage_starts_on_what_the_ones_before_left(init: str) -> None:
    quantizer = make({"type": "ema", "init": init})
    latents = 50 + 5 * torch.randn(8, *SHAPE[1:])
    quantizer(latents)
    sizes = [quantizer.stage(index).codebook.norm(dim=1).mean().item() for index in range(STAGES)]
    assert sizes[0] > 80 > 15 > max(sizes[1:])


def test_a_stage_restarts_on_its_residuals() -> None:
    """On rows that the stage coded in the batch after the one that found the code dead."""
    quantizer = make({"type": "ema", "restart_threshold": 0.5, "decay": 0.0})
    latents = torch.randn(SHAPE)
    quantizer(latents)
    for index in range(STAGES):
        quantizer.stage(index).codebook[3:] += 1000.0
        usage = quantizer.stage(index).usage
        assert usage is not None
        usage.cluster_size[3:] = 0.0  # dead
    _, residuals, _ = by_brute_force(rows_of(latents), tables(quantizer))
    quantizer(latents)
    for index in range(STAGES):
        for code in quantizer.stage(index).codebook[3:].numpy():
            assert np.abs(residuals[index] - code).max(axis=1).min() < 1e-5
