"""Code sets for these tests: a spec without a tokenizer, and folders written straight from arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from tests.hub.conftest import RunClient, alice, hub, run_client
from tests.written_codes import write_spec, write_split
from vqtok.codes import CodesSpec

__all__ = ["RunClient", "WriteCodes", "alice", "hub", "make_grids", "make_spec", "run_client", "write_codes"]

WriteCodes = Callable[..., Path]


def make_spec(**changes: Any) -> CodesSpec:
    """Grids of 2x3 codes below 16, unless told otherwise."""
    values = {"grid": (2, 3), "codebook_size": 16, "num_codebooks": 1, "fingerprint": "a" * 64}
    return CodesSpec(**{**values, **changes})


def make_grids(count: int, spec: CodesSpec) -> npt.NDArray[Any]:
    """Random grids that reach the largest code."""
    grids = np.random.default_rng(0).integers(0, spec.codebook_size, (count, *spec.shape))
    grids[0] = spec.codebook_size - 1
    return grids


@pytest.fixture
def write_codes(tmp_path: Path) -> WriteCodes:
    """Write grids, with their row numbers beside them, and give the folder."""

    def write(grids: npt.NDArray[Any], spec: CodesSpec, *, name: str = "codes", batches: int = 1) -> Path:
        folder = tmp_path / name
        features = datasets.Features({"row": datasets.Value("int64")})
        rows = pa.table({"row": np.arange(len(grids))})
        write_split(folder, grids, spec, columns=rows, features=features, split="train", batches=batches)
        write_spec(folder, spec)
        return folder

    return write
