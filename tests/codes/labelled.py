"""Codes folders whose grids have classes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from datasets import Array2D, ClassLabel, Dataset, Features

SPEC = {
    "format": "vqtok-codes",
    "version": 1,
    "grid": [2, 2],
    "codebook_size": 8,
    "num_codebooks": 1,
    "fingerprint": "f" * 64,
    "repository": "runs/tok/model",
    "revision": None,
    "preprocessing": {},
    "vqtok_version": "0",
}
LABEL = {"label": ClassLabel(names=["cat", "dog"])}


def make_codes(count: int, columns: dict[str, Any] | None = None) -> Dataset:
    """Grids of one code each, 0 1 2 ... 7 0 1 ..., whose classes alternate."""
    columns = LABEL if columns is None else columns
    grids = np.broadcast_to((np.arange(count) % 8)[:, None, None], (count, 2, 2))
    values = {"codes": list(grids.astype(np.uint16))} | {name: [row % 2 for row in range(count)] for name in columns}
    dataset = Dataset.from_dict(values, features=Features({"codes": Array2D((2, 2), "uint16")} | columns))
    dataset.info.description = json.dumps(SPEC)
    return dataset
