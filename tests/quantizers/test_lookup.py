from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from vqtok.errors import ConfigurationError
from vqtok.quantizers import lookup, lookup_faiss
from vqtok.quantizers.lookup import gather_codes, least_by_rows, most_similar_codes, nearest_codes

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def brute_force(rows: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    differences = rows.double().numpy()[:, None, :] - codebook.double().numpy()[None, :, :]
    return torch.from_numpy((differences**2).sum(axis=2).argmin(axis=1))  # numpy's argmin takes the first


def whole_numbers(noise: np.random.Generator, count: int, dim: int) -> torch.Tensor:
    """Exact in every float type, and many of them tie."""
    return torch.from_numpy(noise.integers(-2, 3, (count, dim)).astype(np.float32))


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 40),
    size=st.integers(1, 130),
    dim=st.integers(1, 9),
    dtype=st.sampled_from(DTYPES),
    held=st.sampled_from([1, 7, 30, 64, 2**20]),
    seed=st.integers(0, 2**16),
)
def test_equals_brute_force_with_ties_to_the_lowest(
    count: int, size: int, dim: int, dtype: torch.dtype, held: int, seed: int
) -> None:
    noise = np.random.default_rng(seed)
    rows = whole_numbers(noise, count, dim).to(dtype)
    codebook = whole_numbers(noise, size, dim).to(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup, "SCORES_PER_THREAD", held)
        codes, similar = nearest_codes(rows, codebook), most_similar_codes(rows, codebook)
    assert codes.dtype == similar.dtype == torch.int64
    assert torch.equal(codes, brute_force(rows, codebook))
    products = rows.double().numpy() @ codebook.double().numpy().T
    assert torch.equal(similar, torch.from_numpy(products.argmax(axis=1)))


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 40), size=st.integers(1, 130), held=st.sampled_from([1, 7, 64, 2**20]))
def test_the_search_of_accelerators_equals_brute_force(count: int, size: int, held: int) -> None:
    noise = np.random.default_rng(count * size)
    rows, codebook = whole_numbers(noise, count, 5), whole_numbers(noise, size, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup, "SCORES_ON_ACCELERATOR", held)
        lookup.scores_on.cache_clear()
        codes = least_by_rows(rows, -2 * codebook, codebook.square().sum(dim=1))
    lookup.scores_on.cache_clear()
    assert torch.equal(codes, brute_force(rows, codebook))


@pytest.mark.parametrize(("size", "dim"), [(512, 64), (1000, 3), (2, 7), (1, 1)])
def test_equals_brute_force_on_real_numbers(size: int, dim: int) -> None:
    torch.manual_seed(0)
    rows, codebook = torch.randn(500, dim), torch.randn(size, dim)
    assert torch.equal(nearest_codes(rows, codebook), brute_force(rows, codebook))


@pytest.mark.parametrize("copies", [2, 37])
def test_of_copies_of_a_code_the_first_is_taken(copies: int) -> None:
    torch.manual_seed(0)
    codebook = torch.randn(100, 64).repeat(copies, 1)
    assert int(nearest_codes(torch.randn(200, 64), codebook).max()) < 100


@pytest.mark.parametrize("count", [9, 10, 11, 20, 21])
def test_chunks_join_without_a_seam(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    rows, codebook = torch.randn(count, 3), torch.randn(8, 3)
    monkeypatch.setattr(lookup, "SCORES_PER_THREAD", 8 * 10 // torch.get_num_threads())
    assert torch.equal(nearest_codes(rows, codebook), brute_force(rows, codebook))


class LargestTensor(TorchDispatchMode):
    """Remembers the elements of the largest tensor that any operation made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_rows_by_codes_are_never_held_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "SCORES_PER_THREAD", 2**18 // torch.get_num_threads())
    rows, codebook = torch.randn(8192, 2), torch.randn(256, 2)
    with LargestTensor() as largest:
        lookup.least_by_blocks(rows, codebook, codebook[:, 0])
    assert rows.numel() <= largest.elements <= 2**18 < len(rows) * len(codebook)


def test_autocast_does_not_blunt_the_search() -> None:
    """Codes 0 and 1 are one number in bfloat16."""
    codebook = torch.tensor([[1.0, 0.0], [1.001, 0.0]])
    rows = torch.tensor([[1.0008, 0.0], [1.0002, 0.0]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nearest_codes(rows, codebook).tolist() == [1, 0]


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_products_are_float32_where_torch_may_use_less(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each code has a neighbour that is longer by a hundredth, which products in bfloat16 cannot tell from it.

    Few processors do what torch allows them, so one that does is put in the place of this one.
    """
    if not hasattr(torch.backends.mkldnn, "matmul"):
        pytest.skip("torch before 2.9 has no precision by library")
    product = torch.mm

    def obedient(left: torch.Tensor, right: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
        if torch.backends.mkldnn.matmul.fp32_precision != "ieee":
            left, right = left.bfloat16().float(), right.bfloat16().float()
        return product(left, right, **kwargs)

    monkeypatch.setattr(torch, "mm", obedient)
    noise = torch.Generator().manual_seed(0)
    codebook = torch.randn(32, 64, generator=noise).repeat_interleave(2, dim=0)
    codebook[1::2] *= 1.01
    codes = torch.arange(64).repeat(64)
    rows = codebook[codes] + 1e-5 * torch.randn(len(codes), 64, generator=noise)
    try:
        torch.set_float32_matmul_precision(precision)
        before = torch.backends.mkldnn.matmul.fp32_precision
        found = nearest_codes(rows, codebook)
        assert torch.backends.mkldnn.matmul.fp32_precision == before
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(found, codes)


@pytest.mark.parametrize("strange", [float("nan"), float("inf"), -float("inf"), 1e38, 1e-42])
@pytest.mark.parametrize("search", [nearest_codes, most_similar_codes])
@pytest.mark.parametrize("size", [1, 37, 300])
def test_whatever_the_numbers_codes_are_in_range(search, strange: float, size: int) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    rows, codebook = torch.randn(20, 3), torch.randn(size, 3)
    expected = search(rows, codebook)
    rows[7, 1] = strange
    codes = search(rows, codebook)
    assert codes.min() >= 0 and codes.max() < size
    others = torch.arange(20) != 7
    assert torch.equal(codes[others], expected[others])
    codes = search(torch.randn(20, 3), torch.full((size, 3), strange))
    assert codes.min() >= 0 and codes.max() < size


def test_no_rows_need_no_codes_and_rows_do() -> None:
    assert nearest_codes(torch.empty(0, 3), torch.empty(0, 3)).shape == (0,)
    with pytest.raises(ConfigurationError, match="at least 1 vector"):
        nearest_codes(torch.empty(2, 3), torch.empty(0, 3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_another_default_type_changes_nothing(dtype: torch.dtype) -> None:
    rows, codebook = torch.randn(50, 3), torch.randn(9, 3)
    expected = nearest_codes(rows, codebook)
    torch.set_default_dtype(dtype)
    try:
        found = nearest_codes(rows, codebook)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)


def test_the_search_is_one_operation_to_the_compiler() -> None:
    """An eager backend needs no compiler of C++; `fullgraph` refuses any break."""
    torch.manual_seed(0)
    rows, codebook = torch.randn(50, 4), torch.randn(30, 4)
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(lambda left, right: nearest_codes(left, right) + 1, backend=backend, fullgraph=True)
    assert torch.equal(compiled(rows, codebook), brute_force(rows, codebook) + 1)
    called = [str(node.target) for node in graphs[0].graph.nodes if node.op == "call_function"]
    assert [name for name in called if "search" in name] == ["vqtok.search.default"] and len(called) <= 4


@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 60), size=st.integers(1, 40), dim=st.integers(1, 9), seed=st.integers(0, 2**16))
def test_gathering_has_the_gradient_of_a_one_hot_product(count: int, size: int, dim: int, seed: int) -> None:
    noise = torch.Generator().manual_seed(seed)
    codes = torch.randint(size, (count,), generator=noise)
    weights = torch.randn(count, dim, generator=noise)
    one_hot = torch.nn.functional.one_hot(codes, size).double()
    codebook = torch.randn(size, dim, generator=noise, requires_grad=True)
    vectors = gather_codes(codebook, codes)
    assert torch.equal(vectors, codebook.detach()[codes])
    (vectors * weights).sum().backward()
    expected = one_hot.t() @ weights.double()
    assert codebook.grad is not None
    torch.testing.assert_close(codebook.grad.double(), expected, atol=1e-5, rtol=1e-5)


def test_gradients_of_codes_have_the_same_bits_every_time() -> None:
    torch.manual_seed(0)
    codebook, codes = torch.randn(10, 16, requires_grad=True), torch.randint(10, (20000,))
    weights = torch.randn(20000, 16)

    def gradient() -> torch.Tensor:
        return torch.autograd.grad((gather_codes(codebook, codes) * weights).sum(), codebook)[0]

    threads = torch.get_num_threads()
    torch.set_num_threads(4)  # a single one always adds in the same order
    try:
        first = gradient()
        assert all(torch.equal(first, gradient()) for _ in range(20))
    finally:
        torch.set_num_threads(threads)


class TestFaiss:
    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        pytest.importorskip("faiss")
        if lookup_faiss.faiss() is None:
            pytest.skip("not used on this platform")

    @settings(max_examples=30, deadline=None)
    @given(count=st.integers(1, 300), size=st.integers(1, 300), dim=st.integers(1, 40), seed=st.integers(0, 2**16))
    def test_equals_brute_force_with_ties_to_the_lowest(self, count: int, size: int, dim: int, seed: int) -> None:
        noise = np.random.default_rng(seed)
        rows, codebook = whole_numbers(noise, count, dim), whole_numbers(noise, size, dim)
        assert torch.equal(lookup_faiss.nearest_codes(rows, codebook), brute_force(rows, codebook))

    @pytest.mark.parametrize(("count", "dim", "size"), [(16384, 8, 300), (8192, 16, 257), (4096, 32, 1000)])
    def test_is_used_where_it_suits_and_finds_the_same_distance(self, count: int, dim: int, size: int) -> None:
        torch.manual_seed(0)
        rows, codebook = torch.randn(count, dim), torch.randn(size, dim)
        rows[:5] = codebook[-5:]
        rows[5] = float("nan")
        assert lookup_faiss.suits(rows, codebook)
        found = nearest_codes(rows, codebook)
        plain = lookup.least_by_blocks(rows, -2 * codebook, codebook.square().sum(dim=1))
        assert found.min() >= 0 and found.max() < size
        differ = (found != plain) & ~rows.isnan().any(dim=1)
        distances = [
            (rows[differ].double() - codebook[codes[differ]].double()).square().sum(1) for codes in (found, plain)
        ]
        torch.testing.assert_close(distances[0], distances[1], atol=1e-5, rtol=1e-5)
        assert int(differ.sum()) <= count // 1000

    def test_is_left_alone_where_it_is_slower(self) -> None:
        assert not lookup_faiss.suits(torch.empty(2**15, 64), torch.empty(4096, 64))
        assert not lookup_faiss.suits(torch.empty(100, 8), torch.empty(4096, 8))
        assert not lookup_faiss.suits(torch.empty(2**15, 8), torch.empty(16, 8))
