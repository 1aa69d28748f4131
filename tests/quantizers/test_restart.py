from __future__ import annotations

from typing import Any

import pytest
import torch

from vqtok.quantizers import EMAQuantizer, GumbelQuantizer, IndexBackpropagationQuantizer, VectorQuantizer
from vqtok.quantizers.codebook import CodebookQuantizer

METHODS = [EMAQuantizer, GumbelQuantizer, IndexBackpropagationQuantizer, VectorQuantizer]


def make(method: type[CodebookQuantizer], **options: Any) -> CodebookQuantizer:
    torch.manual_seed(0)
    return method(**({"codebook_size": 8, "code_dim": 3, "decay": 0.5} | options))


@pytest.mark.parametrize("method", METHODS)
def test_dead_codes_and_no_others_are_put_on_latents_of_the_batch(method: type[CodebookQuantizer]) -> None:
    """64 latents fall to codes 4 to 7 alike. Codes whose use has come under 0.25 * 64 / 8 = 2 a batch restart."""
    quantizer = make(method, init="normal", restart_threshold=0.25, metric="euclidean")
    corners = torch.tensor([[3.0, 0, 0], [0, 3, 0], [0, 0, 3], [-3, 0, 0]])
    rows = corners.repeat(16, 1) + 0.1 * torch.randn(64, 3)
    latents = rows.T.reshape(1, 3, 8, 8)
    far = torch.tensor([[50.0, 0, 0], [0, 50, 0], [0, 0, 50], [-50, 0, 0]])
    use = torch.tensor([0.0, 3.8, 4.2, 5, 8, 8, 8, 8])  # which the batch brings half of the way to 0 or 16
    quantizer.initialize_once(rows)
    quantizer.usage.cluster_size.copy_(use)
    quantizer.set_codes(torch.cat([far, corners]), torch.ones(8, dtype=torch.bool))
    quantizer(latents)
    codes = quantizer.codebook.detach()
    on_a_latent = (codes[:, None] == rows).all(dim=2).any(dim=1)
    assert on_a_latent.tolist() == [True, True] + [False] * 6
    torch.testing.assert_close(codes[2:4], far[2:4], rtol=1e-4, atol=0)
    assert quantizer.usage.cluster_size.tolist() == pytest.approx([4, 4, 2.1, 2.5, 12, 12, 12, 12])
    if isinstance(quantizer, EMAQuantizer):
        torch.testing.assert_close(quantizer.code_sums[:2], 4 * codes[:2])
    else:
        assert torch.equal(codes[4:], corners)


@pytest.mark.parametrize("method", [EMAQuantizer, GumbelQuantizer, VectorQuantizer])  # not where the longest code wins
def test_restart_leaves_no_code_unused(method: type[CodebookQuantizer]) -> None:
    quantizer = make(method, init="normal", restart_threshold=0.2, codebook_size=32)
    alone = make(method, init="normal", restart_threshold=0.0, codebook_size=32)
    latents = 3 + 0.01 * torch.randn(64, 3, 4, 4)  # far from any code
    for _ in range(30):
        for each in (quantizer, alone):
            each(latents)
    assert len(alone.encode(latents).unique()) < 8
    assert len(quantizer.encode(latents).unique()) >= 30


def test_a_threshold_of_zero_never_restarts_and_draws_nothing() -> None:
    quantizer = make(EMAQuantizer, init="normal", restart_threshold=0.0)
    state = torch.get_rng_state()
    quantizer(torch.randn(1, 3, 1, 1, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), state)
    assert quantizer.usage.cluster_size.min().item() == 0.5


@pytest.mark.parametrize("method", [EMAQuantizer, VectorQuantizer])
def test_a_restarted_code_has_no_memory_of_its_old_place(method: type[CodebookQuantizer]) -> None:
    """Its sums are those of its new place, so that the next batch does not drag it back."""
    quantizer = make(method, init="normal", restart_threshold=0.25, decay=0.9)
    with torch.no_grad():
        quantizer.codebook[0] = 1000.0
    for _ in range(40):
        quantizer(torch.randn(4, 3, 4, 4))
    assert quantizer.codebook[0].abs().max() < 10


def test_a_restart_under_cosine_codes_is_on_latents_of_unit_length() -> None:
    quantizer = make(EMAQuantizer, metric="cosine", init="normal", restart_threshold=0.9, decay=0.0)
    latents = 5 * torch.randn(1, 3, 2, 2)
    quantizer(latents)
    directions = torch.nn.functional.normalize(latents.flatten(2)[0].T, dim=1)
    used = (quantizer.usage.cluster_size - 2 * 0.9 * 4 / 8).abs() < 1e-5
    assert used.sum() >= 4
    for code in quantizer.codebook[used]:
        assert (directions - code).abs().amax(dim=1).min() < 1e-6
