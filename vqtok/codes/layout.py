"""What a codes folder holds beside its shards and their receipts, and in what order it appears.

README.md               first a card that names no files: `load_dataset` would take what is there for the whole
plan.json, plan/        what is to be done, see `plan.py`
codes.json              which tokenizer, see `spec.py`
train/data-*.arrow      shards, in any order, each followed by its receipt in receipts/
bad_images.parquet      what could not be read
train/state.json        of every split, beside a dataset_info.json
plan/tokenizer/         only while actors on other machines work, who load it from there
README.md               now with the files
dataset_dict.json       last: without it `load_from_disk` refuses the folder
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import pyarrow as pa

from vqtok.codes.spec import SIDECAR

__all__ = ["BAD_IMAGES", "BAD_SCHEMA", "LENT_TOKENIZER", "PLANNING", "RECEIPT", "SPLITS", "own_files"]

SPLITS = "dataset_dict.json"
BAD_IMAGES = "bad_images.parquet"
BAD_SCHEMA = pa.schema({"split": pa.string(), "row": pa.int64(), "path": pa.string(), "reason": pa.string()})
PLANNING = rf"{SIDECAR}|README\.md|plan/[^/]+/(\d+\.arrow|held_out\.bin)"
"""A regular expression of the files that are there before plan.json is: where there are no others, nothing was lost."""
RECEIPT = r"receipts/([^/]+)/\d+\.json"
"""A regular expression of receipts, whose group is the split."""
LENT_TOKENIZER = r"plan/tokenizer/((preprocessor_)?config\.json|model[\w.-]*\.safetensors(\.index\.json)?)"
"""A regular expression of a tokenizer that lies there while workers need it; tokenizer/ is left to people."""


def own_files(splits: Iterable[str]) -> str:
    """A regular expression of the files of a codes folder with these splits, relative to it.

    The cache files are those that `datasets` puts there when it is used.
    """
    names = "|".join(map(re.escape, splits))
    common = rf"{PLANNING}|plan\.json|{RECEIPT}|{LENT_TOKENIZER}|{BAD_IMAGES}|{SPLITS}"
    number = r"\d{5,}-of-\d{5,}"
    cache = r"cache-[0-9a-f]{16}(_\d{5}_of_\d{5})?"
    arrow = rf"dataset_info\.json|state\.json|(data-{number}|{cache})\.arrow"
    return rf"{common}|({names})/({arrow})|data/({names})-{number}\.parquet" if names else common
