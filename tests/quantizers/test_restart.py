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
    quantizer = make(method, init="normal", restart_threshold=0.25)
    rows = torch.randn(64, 3)
    quantizer.usage.cluster_size.copy_(
        torch.tensor([0.0, 1.9, 2.0, 2.1, 8, 8, 8, 8])
    )  # the threshold is 0.25 * 64 / 8 = 2
    before = quantizer.codebook.detach().clone()
    torch.manual_seed(7)
    expected = rows[(torch.rand(8, dtype=torch.float64) * 64).long()]
    torch.manual_seed(7)
    quantizer.restart_dead(rows, torch.tensor(64.0))
    assert torch.equal(quantizer.codebook[:2], expected[:2])
    assert torch.equal(quantizer.codebook[2:], before[2:])
    assert quantizer.usage.cluster_size.tolist() == pytest.approx([4.0, 4.0, 2.0, 2.1, 8, 8, 8, 8])
    if isinstance(quantizer, EMAQuantizer):
        torch.testing.assert_close(quantizer.code_sums[:2], 4 * expected[:2])


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
