from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from vector_quantize_pytorch import VectorQuantize

from vqtok.quantizers import EMAQuantizer
from vqtok.quantizers.base import to_rows

BATCH, DIM, HEIGHT, WIDTH, SIZE = 4, 3, 3, 2, 6


MANY = 1000  # batches after which the decay is what was asked for
EVEN = BATCH * HEIGHT * WIDTH / SIZE  # rows of each code of a batch if all are used alike, where the averages start


class Reference:
    """Appendix A.1 of van den Oord et al. 2017 in float64 numpy, one code and one row at a time."""

    def __init__(self, codebook: torch.Tensor, *, decay: float, epsilon: float, batches: int) -> None:
        self.e = codebook.double().numpy().copy()
        self.counts = np.full(len(self.e), EVEN)
        self.sums = EVEN * self.e
        self.decay, self.epsilon, self.batches = decay, epsilon, batches

    def nearest(self, rows: np.ndarray) -> np.ndarray:
        return np.array([int(((self.e - row) ** 2).sum(axis=1).argmin()) for row in rows])

    def step(self, latents: torch.Tensor) -> np.ndarray:
        rows = latents.double().permute(0, 2, 3, 1).reshape(-1, latents.shape[1]).numpy()
        codes = self.nearest(rows)
        decay = min(self.decay, (1 + self.batches) / (10 + self.batches))
        self.batches += 1
        for k in range(len(self.e)):
            mine = rows[codes == k]
            self.counts[k] = decay * self.counts[k] + (1 - decay) * len(mine)
            self.sums[k] = decay * self.sums[k] + (1 - decay) * mine.sum(axis=0)
        total = self.counts.sum()
        smoothed = (self.counts + self.epsilon) / (total + len(self.e) * self.epsilon) * total
        used = self.counts > 1e-3 * self.counts.mean()
        self.e = np.where(used[:, None], self.sums / smoothed[:, None], self.e)
        return codes


def make(*, batches: int = MANY, **options: Any) -> EMAQuantizer:
    """A quantizer that has seen so many batches."""
    torch.manual_seed(0)
    plain = {"codebook_size": SIZE, "code_dim": DIM, "init": "normal", "restart_threshold": 0.0}
    quantizer = EMAQuantizer(**(plain | options))
    quantizer.noise.batches_seen.fill_(batches)
    return quantizer


@pytest.mark.parametrize("batches", [0, 7, MANY])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("epsilon", [1e-5, 0.5])
def test_counts_sums_and_codes_follow_equations_6_to_8(decay: float, epsilon: float, batches: int) -> None:
    """With a decay that is less in the first batches."""
    quantizer = make(decay=decay, epsilon=epsilon, batches=batches)
    reference = Reference(quantizer.codebook, decay=decay, epsilon=epsilon, batches=batches)
    for step in range(6):
        latents = torch.randn(BATCH, DIM, HEIGHT, WIDTH) + 0.2 * step  # latents that drift
        codes = reference.step(latents)
        assert quantizer(latents).codes.flatten().tolist() == codes.tolist()
        np.testing.assert_allclose(quantizer.usage.cluster_size.numpy(), reference.counts, rtol=1e-5)
        np.testing.assert_allclose(quantizer.code_sums.numpy(), reference.sums, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(quantizer.codebook.numpy(), reference.e, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gradient", ["rotation", "straight-through"])
def test_against_the_library(gradient: str) -> None:
    """Codebook, values and gradients over several steps."""
    quantizer = make(decay=0.5, beta=0.25, gradient=gradient)
    library = VectorQuantize(
        dim=DIM, codebook_size=SIZE, decay=0.5, commitment_weight=0.25, rotation_trick=gradient == "rotation"
    ).train()
    library._codebook.embed.data.copy_(quantizer.codebook[None])
    library._codebook.embed_avg.copy_(EVEN * quantizer.codebook[None])
    library._codebook.cluster_size.fill_(EVEN)
    for _ in range(4):
        latents = torch.randn(BATCH, DIM, HEIGHT, WIDTH, requires_grad=True)
        weights = torch.randn(BATCH, DIM, HEIGHT, WIDTH)
        output = quantizer(latents)
        rows, codes, loss = library(to_rows(latents)[None])
        assert torch.equal(output.codes.flatten(), codes[0])
        torch.testing.assert_close(to_rows(output.quantized), rows[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(output.loss, loss.sum(), rtol=1e-5, atol=1e-5)
        (ours,) = torch.autograd.grad(output.loss + (weights * output.quantized).sum(), latents)
        (theirs,) = torch.autograd.grad(loss.sum() + (to_rows(weights) * rows[0]).sum(), latents)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(quantizer.codebook, library._codebook.embed[0], rtol=1e-5, atol=1e-5)


def test_the_gradient_is_the_commitment_alone_and_straight_through() -> None:
    quantizer = make(beta=0.25)
    before = quantizer.codebook.clone()
    latents = torch.randn(BATCH, DIM, HEIGHT, WIDTH, requires_grad=True)
    weights = torch.randn(BATCH, DIM, HEIGHT, WIDTH)
    output = quantizer(latents)
    (output.loss + (weights * output.quantized).sum()).backward()  # the codebook has moved by now
    e = before[output.codes].permute(0, 3, 1, 2)
    expected = weights + 0.25 * 2 * (latents.detach() - e) / latents.numel()
    torch.testing.assert_close(latents.grad, expected)
    commitment = (latents.detach() - e).square().mean()
    torch.testing.assert_close(output.metrics["commitment"], commitment)
    torch.testing.assert_close(output.loss.detach(), 0.25 * commitment)
    assert list(quantizer.parameters()) == []


def test_the_codebook_moves_after_it_was_looked_up() -> None:
    quantizer = make(decay=0.5)
    before = quantizer.codebook.clone()
    output = quantizer(torch.randn(BATCH, DIM, HEIGHT, WIDTH))
    assert torch.equal(output.quantized, before[output.codes].permute(0, 3, 1, 2))
    assert not torch.equal(quantizer.codebook, before)


def test_evaluation_moves_nothing() -> None:
    quantizer = make(init="data", restart_threshold=0.5).eval()
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    quantizer(torch.randn(BATCH, DIM, HEIGHT, WIDTH))
    assert all(torch.equal(tensor, before[name]) for name, tensor in quantizer.state_dict().items())


def test_a_code_that_no_latent_falls_to_keeps_its_place() -> None:
    quantizer = make(decay=0.9, epsilon=1e-5)
    with torch.no_grad():
        quantizer.codebook[0] = 50.0
    far = quantizer.codebook[0].clone()
    for _ in range(40):
        quantizer(torch.randn(BATCH, DIM, HEIGHT, WIDTH))
    assert quantizer.usage.cluster_size[0].item() == pytest.approx(EVEN * 0.9**40, rel=1e-4)
    torch.testing.assert_close(quantizer.codebook[0], far, rtol=1e-3, atol=0)


def test_a_code_that_is_never_used_again_does_not_fall_to_the_origin() -> None:
    """Its count falls under epsilon, which smoothing puts under its sum."""
    quantizer = make(decay=0.5, epsilon=1e-5)
    with torch.no_grad():
        quantizer.codebook[0] = 50.0
    for _ in range(60):
        quantizer(torch.randn(BATCH, DIM, HEIGHT, WIDTH))
    assert quantizer.usage.cluster_size[0] < 1e-5
    torch.testing.assert_close(quantizer.codebook[0], torch.full((DIM,), 50.0), rtol=0.02, atol=0)


def test_a_code_that_waits_for_its_turn_to_restart_keeps_its_place() -> None:
    """With few rows to a code its count is near epsilon from the beginning."""
    torch.manual_seed(0)
    quantizer = EMAQuantizer(codebook_size=8192, code_dim=2, init="normal")
    with torch.no_grad():
        quantizer.codebook[:] = 200.0
        quantizer.codebook[0] = 0.0
    for _ in range(4):
        quantizer(torch.randn(1, 2, 8, 8))
    waiting = quantizer.codebook[:, 0] > 50
    assert waiting.sum() > 8000
    torch.testing.assert_close(
        quantizer.codebook[waiting], torch.full((int(waiting.sum()), 2), 200.0), rtol=0.02, atol=0
    )


def test_what_it_learned_is_persistent_float32() -> None:
    state = make().state_dict()
    floats = dict.fromkeys(("code_sums", "codebook", "usage.cluster_size", "usage.rows_in_batch"), torch.float32)
    whole = dict.fromkeys(("noise.batches_seen", "noise.noise_seed"), torch.int64)
    assert {name: tensor.dtype for name, tensor in state.items()} == floats | whole | {"initialized": torch.bool}


def test_bfloat16_latents_under_autocast_are_averaged_in_float32() -> None:
    """A moving average with 1 - gamma = 0.01 would stand still in bfloat16, which has 8 bits."""
    latents = torch.randn(BATCH, DIM, HEIGHT, WIDTH).bfloat16()
    plain, cast = make(), make()
    plain(latents.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = cast(latents)
    assert output.quantized.dtype == output.loss.dtype == torch.float32
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, cast.state_dict()[name]), name
