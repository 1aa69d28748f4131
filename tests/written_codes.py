"""Codes folders straight from arrays, without a tokenizer and without the plan of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vqtok.codes import SIDECAR, CodesSpec
from vqtok.codes.columns import grid_array


def write_split(
    folder: Path,
    grids: npt.NDArray[Any],
    spec: CodesSpec,
    *,
    columns: pa.Table | None = None,
    features: datasets.Features | None = None,
    split: str | None = None,
    batches: int = 1,
) -> None:
    """What `save_to_disk` leaves of grids (N, h, w[, Q]) and the columns beside them, in so many record batches."""
    folder.mkdir(parents=True, exist_ok=True)
    features = datasets.Features({"codes": spec.feature, **(features or {})})
    grids = np.ascontiguousarray(grids, dtype=spec.dtype)
    with pa.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), features.arrow_schema) as writer:
        start = 0
        for part in np.array_split(grids, batches):
            beside = [] if columns is None else columns.slice(start, len(part)).combine_chunks().columns
            arrays = [grid_array(part, spec.feature), *(column.combine_chunks() for column in beside)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=features.arrow_schema))
            start += len(part)
    datasets.DatasetInfo(description=spec.to_json(), features=features).write_to_directory(str(folder))
    state: dict[str, Any] = dict.fromkeys(("_format_columns", "_format_type"), None)
    state |= {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_fingerprint": folder.name, "_split": split}
    state |= {"_format_kwargs": {}, "_output_all_columns": False}
    (folder / "state.json").write_text(json.dumps(state))


def write_spec(folder: Path, spec: CodesSpec) -> None:
    """The sidecar of a codes folder."""
    (folder / SIDECAR).write_text(spec.to_json() + "\n")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a codes folder but its receipts, which say how often a shard was begun."""
    files = (path for path in folder.rglob("*") if path.is_file() and "receipts" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
