from __future__ import annotations

from typing import Any

import pytest
import torch

from vqtok.quantizers import EMAQuantizer, GumbelQuantizer, VectorQuantizer
from vqtok.quantizers.base import to_rows
from vqtok.quantizers.codebook import CodebookQuantizer, pick_rows

METHODS = [EMAQuantizer, VectorQuantizer, GumbelQuantizer]


def make(method: type[CodebookQuantizer], **options: Any) -> CodebookQuantizer:
    torch.manual_seed(0)
    return method(**({"codebook_size": 8, "code_dim": 3, "decay": 0.5} | options))


@pytest.mark.parametrize("method", METHODS)
def test_codes_start_on_latents_of_the_first_batch_one_from_each_part_of_it(method: type[CodebookQuantizer]) -> None:
    quantizer = make(method, start="latents", restart_threshold=0.0)
    latents = torch.randn(4, 3, 4, 4)
    rows = to_rows(latents)
    quantizer.start_once(rows)
    places = [int((rows == code).all(dim=1).nonzero()) for code in quantizer.codebook.detach()]
    assert [place // 8 for place in places] == list(range(8))  # 64 rows, 8 codes: code k from the k-th eighth
    assert bool(quantizer.started)
    assert torch.equal(quantizer.cluster_size, torch.ones(8))


@pytest.mark.parametrize("method", METHODS)
def test_only_the_first_training_batch_starts_the_codes(method: type[CodebookQuantizer]) -> None:
    quantizer = make(method, start="latents", restart_threshold=0.0).eval()
    at_first = quantizer.codebook.detach().clone()
    quantizer(torch.randn(4, 3, 4, 4))
    assert torch.equal(quantizer.codebook, at_first)
    quantizer.train()
    quantizer.start_once(torch.randn(64, 3))
    started = quantizer.codebook.detach().clone()
    assert not torch.equal(started, at_first)
    quantizer.start_once(torch.randn(64, 3))
    assert torch.equal(quantizer.codebook, started)
    loaded = make(method, start="latents", restart_threshold=0.0)
    loaded.load_state_dict(quantizer.state_dict())
    loaded.start_once(torch.randn(64, 3))
    assert torch.equal(loaded.codebook, started)


def test_a_normal_start_stays_where_it_was() -> None:
    quantizer = make(EMAQuantizer, start="normal", codebook_size=4096, code_dim=16)
    at_first = quantizer.codebook.clone()
    assert at_first.std().item() == pytest.approx(1 / 4, rel=0.02)
    quantizer.start_once(torch.randn(64, 16))
    assert torch.equal(quantizer.codebook, at_first)
    assert torch.equal(quantizer.code_sums, at_first)


@pytest.mark.parametrize("method", METHODS)
def test_dead_codes_and_no_others_are_put_on_latents_of_the_batch(method: type[CodebookQuantizer]) -> None:
    quantizer = make(method, start="normal", restart_threshold=0.25)
    rows = torch.randn(64, 3)
    quantizer.cluster_size.copy_(torch.tensor([0.0, 1.9, 2.0, 2.1, 8, 8, 8, 8]))  # the threshold is 0.25 * 64 / 8 = 2
    before = quantizer.codebook.detach().clone()
    torch.manual_seed(7)
    expected = rows[(torch.rand(8, dtype=torch.float64) * 64).long()]
    torch.manual_seed(7)
    quantizer.restart_dead(rows, torch.tensor(64.0))
    assert torch.equal(quantizer.codebook[:2], expected[:2])
    assert torch.equal(quantizer.codebook[2:], before[2:])
    assert quantizer.cluster_size.tolist() == pytest.approx([4.0, 4.0, 2.0, 2.1, 8, 8, 8, 8])
    if isinstance(quantizer, EMAQuantizer):
        torch.testing.assert_close(quantizer.code_sums[:2], 4 * expected[:2])


@pytest.mark.parametrize("method", METHODS)
def test_restart_leaves_no_code_unused(method: type[CodebookQuantizer]) -> None:
    quantizer = make(method, start="normal", restart_threshold=0.2, codebook_size=32)
    alone = make(method, start="normal", restart_threshold=0.0, codebook_size=32)
    latents = 3 + 0.01 * torch.randn(64, 3, 4, 4)  # far from any code
    for _ in range(30):
        for each in (quantizer, alone):
            each(latents)
    assert len(alone.encode(latents).unique()) < 8
    assert len(quantizer.encode(latents).unique()) >= 30


def test_a_threshold_of_zero_never_restarts_and_draws_nothing() -> None:
    quantizer = make(EMAQuantizer, start="normal", restart_threshold=0.0)
    state = torch.get_rng_state()
    quantizer(torch.randn(1, 3, 1, 1, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), state)
    assert quantizer.cluster_size.min().item() == 0.5


def test_rows_are_picked_by_their_relative_place() -> None:
    rows = torch.arange(10.0)[:, None]
    places = torch.tensor([0.0, 0.099, 0.1, 0.55, 0.999], dtype=torch.float64)
    assert pick_rows(rows, places).flatten().tolist() == [0, 0, 1, 5, 9]
