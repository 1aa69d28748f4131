"""What a codes folder holds beside its shards and their receipts, and in what order it appears.

README.md               first a card that names no files: `load_dataset` would take what is there for the whole
plan.json, plan/        what is to be done, see `plan.py`
codes.json              which tokenizer, see `spec.py`
train/data-*.arrow      shards, in any order, each followed by its receipt in receipts/
bad_images.parquet      what could not be read
train/state.json        of every split, beside a dataset_info.json
README.md               now with the files
dataset_dict.json       last: without it `load_from_disk` refuses the folder
"""

from __future__ import annotations

from vqtok.codes.card import CARD
from vqtok.codes.spec import SIDECAR

__all__ = ["BAD_IMAGES", "FILES", "PLANNING", "SPLITS"]

SPLITS = "dataset_dict.json"
BAD_IMAGES = "bad_images.parquet"
FILES = (
    CARD,
    SPLITS,
    SIDECAR,
    BAD_IMAGES,
    "plan.json",
    "plan/*",
    "receipts/*",
    "data/*-of-*.parquet",
    *(f"*/{name}" for name in ("dataset_info.json", "state.json", "data-*.arrow", "cache-*.arrow")),
)
"""Patterns of the files in a codes folder; cache files are those that `datasets` puts there when it is used."""

PLANNING = (SIDECAR, CARD, "plan/*")
"""Patterns of the files that are there before plan.json is: where there are no others, nothing was lost."""
