"""Codes as a map-style dataset of torch: whole batches out of memory-mapped files, however many there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from datasets.table import InMemoryTable, Table
from torch import Tensor
from torch.utils.data import Dataset

from vqtok.codes.buffers import RowBuffers
from vqtok.codes.columns import check_offsets, grid_array, grid_feature, grids_in
from vqtok.codes.reader import load_codes
from vqtok.codes.spec import COLUMN
from vqtok.data.columns import find_labels
from vqtok.errors import DataError, shortened
from vqtok.text import counted

__all__ = ["CodesDataset"]

BLOCK = 8192  # grids at a time in a pass over all of them


class CodesDataset(Dataset[dict[str, Tensor]]):
    """Grids of codes, and their classes where they have them.

    An item is a dict of `codes`, int64 (h, w), or (h, w, Q) where Q > 1, and where there are labels `labels`, int64 ().
    `__getitems__` reads a whole batch at once, so a DataLoader takes it as it comes:

        data = CodesDataset.from_folder("codes")
        DataLoader(data, batch_size=256, shuffle=True, collate_fn=dict)

    The files stay mapped as `datasets` mapped them and nothing of them is held in memory but what the system caches.
    Pickled, as for worker processes, it is the names of the files, which are mapped anew, and the rows and labels.

    Opening looks at the ends of every record batch, which says that all grids lie within the file; that each row is
    a grid of its own is looked up when the first row of a record batch is asked for, a few milliseconds for 65,536.

    Args:
        dataset: codes, as `load_codes` gives them; its rows may be selected, shuffled or concatenated.
        labels: the class of each row, int64 (N,), or None for images without classes.

    Raises:
        DataError: there is no column of code grids, some rows have none, or labels of another number.
    """

    def __init__(self, dataset: datasets.Dataset, labels: npt.NDArray[np.int64] | None = None) -> None:
        if labels is not None and len(labels) != len(dataset):
            raise DataError(f"labels must be one for each of {counted(len(dataset), 'image')}, got {len(labels)}")
        feature = grid_feature(dataset)
        self._open(dataset.data.select([COLUMN]), feature)
        indices = dataset._indices
        self._rows = None if indices is None else indices.column(0).to_numpy().astype(np.int64, copy=False)
        self.labels = labels

    @classmethod
    def from_folder(
        cls, path: str | Path, split: str | None = None, *, label_column: str | None = None
    ) -> CodesDataset:
        """Open a codes folder.

        Args:
            path: what `vqtok tokenize --out` wrote.
            split: which split of it; may be left out where there is only one.
            label_column: where the classes are; found as `vqtok.data.columns` says where not given.

        Raises:
            DataError: no codes there, no such split, or a label column that is not there.
            MismatchError: the codes are those of several tokenizers.
        """
        codes = load_codes(path)
        splits = dict(codes) if isinstance(codes, datasets.DatasetDict) else {str(codes.split or "train"): codes}
        name = next(iter(splits)) if split is None and len(splits) == 1 else str(split)
        if name not in splits:
            raise DataError(f"{path} has the splits {', '.join(splits)}: choose one of them, got {split}")
        labels, _ = find_labels({name: splits[name]}, str(path), label_column)
        return cls(splits[name], labels.of(splits[name], f"{path}, split {name}") if labels else None)

    @classmethod
    def from_arrays(cls, codes: npt.NDArray[Any], labels: npt.NDArray[np.int64] | None = None) -> CodesDataset:
        """Grids that are in memory already: integers (N, h, w), or (N, h, w, Q) where Q > 1; not copied."""
        kind = datasets.Array2D if codes.ndim == 3 else datasets.Array3D
        feature = kind(shape=codes.shape[1:], dtype=codes.dtype.name)
        table = pa.table({COLUMN: grid_array(np.ascontiguousarray(codes), feature)})
        info = datasets.DatasetInfo(features=datasets.Features({COLUMN: feature}))
        return cls(datasets.Dataset(InMemoryTable(table), info=info), labels)

    def _open(self, table: Table, feature: datasets.Array2D | datasets.Array3D) -> None:
        self._table, self._feature = table, feature
        self._chunks = table.column(COLUMN).chunks
        self._buffers = RowBuffers([grids_in(chunk, feature) for chunk in self._chunks], feature.shape, feature.dtype)
        self._unchecked = {number for number, chunk in enumerate(self._chunks) if len(chunk)}

    def __getstate__(self) -> dict[str, Any]:
        return {"table": self._table, "feature": self._feature, "rows": self._rows, "labels": self.labels}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._open(state["table"], state["feature"])
        self._rows, self.labels = state["rows"], state["labels"]

    def __len__(self) -> int:
        return len(self._buffers) if self._rows is None else len(self._rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, h, w), or (N, h, w, Q) where Q > 1."""
        return len(self), *self._buffers.shape

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        """One grid: codes (h, w[, Q]), labels ()."""
        return {name: values[0] for name, values in self.__getitems__([row]).items()}

    def __getitems__(self, rows: Sequence[int] | npt.NDArray[np.integer[Any]] | Tensor) -> dict[str, Tensor]:
        """Some grids, in the order asked for: codes (B, h, w[, Q]), labels (B,).

        Args:
            rows: an array or tensor is read faster than a list.

        Raises:
            IndexError: a row that is no integer or not in [-N, N).
            DataError: a file whose rows are not all grids.
        """
        wanted = _integers(rows)
        batch = {"codes": torch.from_numpy(self._read(wanted).astype(np.int64))}
        if self.labels is not None:
            batch["labels"] = torch.from_numpy(self.labels[wanted].astype(np.int64, copy=False))
        return batch

    def select(self, rows: npt.NDArray[np.integer[Any]]) -> CodesDataset:
        """Some of the images, in the order given; the files are shared.

        Raises:
            IndexError: a row that is not in [-N, N).
        """
        wanted = self._stored(self._from_start(_integers(rows)))
        part = object.__new__(type(self))
        part.__dict__.update(self.__dict__)
        part._rows, part.labels = wanted, None if self.labels is None else self.labels[rows]
        return part

    def blocks(self) -> Iterator[npt.NDArray[Any]]:
        """All grids in order, some thousands at a time: (n, h, w[, Q]) of the type on disk."""
        for start in range(0, len(self), BLOCK):
            yield self._read(np.arange(start, min(start + BLOCK, len(self))))

    def _read(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Grids (B, h, w[, Q]) of the type on disk."""
        try:
            parts, places = self._buffers.find(self._stored(rows))
        except IndexError:
            parts, places = self._buffers.find(self._stored(self._from_start(rows)))
        if self._unchecked:
            self._check(parts)
        return self._buffers.gather(places)

    def _stored(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Where rows of a selection are in the files."""
        return rows if self._rows is None else self._rows[rows]

    def _from_start(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Rows in [0, N) where some may be counted from the end."""
        wrong = rows[(rows < -len(self)) | (rows >= len(self))]
        if len(wrong):
            raise IndexError(f"rows must be in [{-len(self)}, {len(self)}), got {wrong[0]}")
        return np.where(rows < 0, rows + len(self), rows)

    def _check(self, parts: npt.NDArray[np.int64]) -> None:
        """Look whether record batches hold grids that nobody has looked at yet."""
        for part in self._unchecked.intersection(parts.tolist()):
            check_offsets(self._chunks[part], self._feature)
            self._unchecked.discard(part)


def _integers(rows: object) -> npt.NDArray[np.int64]:
    found = np.asarray(rows)
    if found.ndim != 1 or (found.dtype.kind not in "iu" and len(found)):
        raise IndexError(f"rows must be a list of integers, got {shortened(rows)}")
    return found.astype(np.int64, copy=False)
