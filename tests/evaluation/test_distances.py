"""Distances between codes, against every pair by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqtok.evaluation import distances
from vqtok.evaluation.distances import code_distances, code_vectors, nearest_others, similarity_order
from vqtok.quantizers import build_quantizer


def all_pairs(vectors: torch.Tensor) -> np.ndarray:
    rows = vectors.double().numpy()
    return np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(axis=2))


@settings(max_examples=40, deadline=None)
@given(size=st.integers(2, 60), dim=st.integers(1, 9), offset=st.sampled_from([0.0, 1000.0]), seed=st.integers(0, 99))
def test_distances_are_those_of_every_pair(size: int, dim: int, offset: float, seed: int) -> None:
    """Also of vectors that all lie far from the origin, where a product of them has few digits left."""
    vectors = torch.randn(size, dim, generator=torch.Generator().manual_seed(seed)) + offset
    found, pairs = code_distances(vectors), all_pairs(vectors)
    assert found.codes.tolist() == list(range(size)) and sorted(found.mapped.tolist()) == list(range(size))
    np.testing.assert_allclose(found.pairs, pairs[np.ix_(found.mapped, found.mapped)], rtol=1e-9)
    np.fill_diagonal(pairs, np.inf)
    np.testing.assert_allclose(found.nearest, pairs.min(axis=1), rtol=1e-4, atol=1e-6)


def test_two_codes_on_one_spot_have_no_distance() -> None:
    vectors = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)) * 100
    vectors[7] = vectors[3]
    nearest = code_distances(vectors).nearest
    assert nearest[3] == nearest[7] == 0 and (np.delete(nearest, [3, 7]) > 1).all()


def test_of_a_large_codebook_there_is_a_sample_against_all_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "ALL_NEAREST", 50)
    monkeypatch.setattr(distances, "SAMPLE_NEAREST", 30)
    monkeypatch.setattr(distances, "SAMPLE_PAIRS", 10)
    monkeypatch.setattr(distances, "SCORES_AT_ONCE", 700)  # several chunks
    vectors = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    found, pairs = code_distances(vectors), all_pairs(vectors)
    assert (len(set(found.codes.tolist())), len(set(found.mapped.tolist()))) == (30, 10)
    np.fill_diagonal(pairs, np.inf)
    np.testing.assert_allclose(found.nearest, pairs.min(axis=1)[found.codes], rtol=1e-5)


def test_vectors_are_what_the_decoder_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "CODES_AT_ONCE", 3)
    single = build_quantizer({"type": "vq", "codebook_size": 8, "code_dim": 4})
    assert torch.equal(code_vectors(single), single.codebook.detach())
    fixed = build_quantizer({"type": "lfq", "codebook_size": 8})
    assert sorted(map(tuple, code_vectors(fixed).sign().tolist())) == sorted(
        (a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)
    )


def test_vectors_of_one_codebook_leave_the_others_out() -> None:
    product = build_quantizer(
        {"type": "product", "num_codebooks": 2, "each": {"type": "ema", "codebook_size": 5, "code_dim": 3}}
    )
    first, second = code_vectors(product, 0), code_vectors(product, 1)
    assert first.shape == second.shape == (5, product.code_dim)
    assert first[:, 3:].abs().max() == second[:, :3].abs().max() == 0
    codes = torch.tensor([[[[2, 4]]]])
    torch.testing.assert_close(product.decode(codes)[0, :, 0, 0], first[2] + second[4])


def test_similar_vectors_come_side_by_side() -> None:
    noise = np.random.default_rng(0)
    family = noise.permutation(np.repeat(np.arange(4), 16))
    centres = np.array([[0, 0, 0], [9, 0, 0], [0, 20, 0], [0, 20, 9]])
    vectors = centres[family] + noise.normal(size=(64, 3))
    order = similarity_order(vectors)
    assert sorted(order.tolist()) == list(range(64))
    assert (np.diff(family[order]) != 0).sum() == 3


def test_nearest_others_of_some_codes() -> None:
    vectors = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert nearest_others(vectors, torch.tensor([3, 0])).tolist() == [4.0, 1.0]
