"""What is kept of a split to know it again: its rows, its commit, and what its images are called."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import pyarrow as pa
from datasets import Features, Value
from pydantic import BaseModel

__all__ = ["NAMES", "SplitRecord", "digest_of_names", "name_column"]

NAMES = ("file_name", "__key__")
"""Columns that say what images are called, in folders and in tar files."""


class SplitRecord(BaseModel, frozen=True):
    """Of two splits that have the same record, row n is the same image, as far as names and numbers say.

    Attributes:
        split: its name in the dataset.
        rows: good and bad.
        revision: the commit on the Hub, where there is one.
        names: sha256 of what the images are called, in order, where they are called anything.
    """

    split: str
    rows: int
    revision: str | None
    names: str | None

    def change(self, now: SplitRecord) -> str | None:
        """What is another about the split now, as a sentence that "since" can follow; None where nothing is."""
        if self.rows != now.rows:
            return f"the images of {now.split} were {self.rows:,} and are {now.rows:,}"
        if self.revision != now.revision:
            return f"the dataset was at {self.revision or 'no revision'} and is at {now.revision or 'no revision'}"
        return f"the images of {now.split} have other names or another order" if self != now else None


def name_column(features: Features) -> str | None:
    """The column that says what the images are called, if any."""
    found = (name for name in NAMES if isinstance(features.get(name), Value) and "string" in features[name].dtype)
    return next(found, None)


def digest_of_names(tables: Iterable[pa.Table]) -> str:
    """The sha256, as hex, of the first column of some tables, however the rows are spread over them."""
    digest = hashlib.sha256()
    for table in tables:
        for name in table.column(0).to_pylist():
            digest.update(json.dumps(name).encode() + b"\n")
    return digest.hexdigest()
