"""The kernel in Triton's interpreter, which is chosen when Triton is imported and so needs a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vqtok.quantizers import lookup_triton

IN_THE_INTERPRETER = """
import torch
from vqtok.quantizers.lookup_triton import least_scores

def check(rows, codebook, **changes):
    expected = torch.cdist(rows.double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1)
    found = least_scores(rows, -2 * codebook, codebook.square().sum(dim=1))
    assert found.dtype == torch.int64 and found.shape == (len(rows),)
    assert torch.equal(found, expected), (rows.shape, codebook.shape, rows.dtype)

torch.manual_seed(0)
for count, dim, size in [(1, 1, 1), (70, 8, 130), (3, 33, 65), (65, 100, 7)]:
    check(torch.randn(count, dim), torch.randn(size, dim))
    whole = torch.randint(-2, 3, (count, dim)).float(), torch.randint(-2, 3, (size, dim)).float()
    check(*whole)  # many ties
    check(whole[0].bfloat16(), whole[1])
    check(whole[0].half(), whole[1])
    check(torch.randn(count, 2 * dim)[:, ::2], torch.randn(size, dim))  # rows that do not lie together

rows, codebook = torch.randn(70, 5), torch.randn(90, 5)
rows[3] = float("nan")
rows[69, 0] = float("inf")
codes = least_scores(rows, -2 * codebook, codebook.square().sum(dim=1))
assert codes.min() >= 0 and codes.max() < 90 and codes[3] == 0
print("equal")
"""


@pytest.mark.skipif(lookup_triton.triton is None, reason="needs triton")
def test_the_kernel_equals_brute_force_in_the_interpreter() -> None:
    run = subprocess.run(
        [sys.executable, "-c", IN_THE_INTERPRETER],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert run.stdout.strip() == "equal", run.stderr


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is there, agrees with the plain search and is asked for."""
    monkeypatch.setattr(lookup_triton, "triton", object())
    monkeypatch.setattr(lookup_triton, "agrees", lambda device: True)
    monkeypatch.setattr(lookup_triton, "asked_for", lookup_triton.asked_for.__wrapped__)
    monkeypatch.setenv("VQTOK_TRITON", "1")


def rows_on(device: str, count: int = 10000, dtype: torch.dtype = torch.float32) -> Any:
    """What `suits` looks at of rows on a device that is not here."""
    return SimpleNamespace(device=torch.device(device), shape=(count, 8), dtype=dtype)


@pytest.mark.usefixtures("ready")
def test_the_kernel_is_not_for_a_cpu() -> None:
    assert lookup_triton.suits(rows_on("cuda")) and not lookup_triton.suits(rows_on("cpu"))


@pytest.mark.usefixtures("ready")
def test_the_kernel_is_not_for_few_rows_nor_for_doubles() -> None:
    for rows in (rows_on("cuda", count=4095), rows_on("cuda", dtype=torch.float64)):
        assert not lookup_triton.suits(rows)


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize(("value", "used"), [(None, False), ("0", False), ("1", True)])
def test_the_kernel_is_used_where_it_is_asked_for(
    value: str | None, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VQTOK_TRITON")
    if value is not None:
        monkeypatch.setenv("VQTOK_TRITON", value)
    assert lookup_triton.suits(rows_on("cuda")) is used


def test_a_kernel_that_does_not_run_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*args: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(lookup_triton, "least_scores", fails)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    assert not lookup_triton.agrees.__wrapped__(torch.device("cpu"))
    assert "no compiler" in caplog.text


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("count", "dim", "size"), [(8192, 64, 512), (8192, 256, 8192), (16384, 8, 16384), (5000, 33, 70)]
)
def test_the_kernel_equals_the_plain_search_on_a_gpu(count: int, dim: int, size: int, dtype: torch.dtype) -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    noise = torch.Generator().manual_seed(0)
    rows = torch.randint(-4, 5, (count, dim), generator=noise).to(device, dtype)
    codebook = torch.randint(-4, 5, (size, dim), generator=noise).to(device, torch.float32)
    offsets = codebook.square().sum(dim=1)
    assert lookup_triton.agrees(device)
    expected = torch.addmm(offsets, rows.float(), codebook.t(), alpha=-2).argmin(dim=1)
    assert torch.equal(lookup_triton.least_scores(rows, -2 * codebook, offsets), expected)
