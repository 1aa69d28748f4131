"""What a codes folder holds beside its shards and their receipts, and in what order it appears.

    README.md               first a card that names no files, since `load_dataset` would take what is there for the whole
    plan.json, plan/        what is to be done, see `plan.py`
    codes.json              which tokenizer, see `spec.py`
    train/data-*.arrow      shards, in any order, each followed by its receipt in receipts/
    bad_images.parquet      what could not be read
    train/state.json        of every split, beside a dataset_info.json
    README.md               now with the files
    dataset_dict.json       last: without it `load_from_disk` refuses the folder
"""

from __future__ import annotations

import datasets
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCardData

from vqtok.codes.plan import Plan
from vqtok.codes.spec import SIDECAR
from vqtok.store import Store
from vqtok.text import counted, tokenizer_text

__all__ = ["BAD_IMAGES", "CARD", "FILES", "SPLITS", "write_card", "write_unfinished_card"]

CARD = "README.md"
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

UNFINISHED = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: none-yet/*.arrow
---
# Codes that are being written

`vqtok tokenize` has not finished here, so there is nothing to load yet. The same command again goes on where it stopped.
"""

TEXT = """# Codes of {images}

Every image is a grid of {grid} integers in [0, {codebook_size:,}), in the column `codes`, made with
[vqtok](https://pypi.org/project/vqtok) by the tokenizer {tokenizer}.

    codes = datasets.load_dataset(...)                       # or load_from_disk, where this folder is on a disk
    images = vqtok.VQTokenizer.from_pretrained(...).detokenize(codes["{split}"][:4]["codes"])
"""


def write_unfinished_card(store: Store) -> None:
    """Let `load_dataset` refuse the folder until all of it is there."""
    store.put(CARD, UNFINISHED.encode())


def write_card(store: Store, plan: Plan, features: datasets.Features, rows: dict[str, int]) -> None:
    """Say what the codes are, and where they lie for `load_dataset`.

    Args:
        features: of the columns.
        rows: how many there are in each split.
    """
    pattern = "data/{}-*.parquet" if plan.request.format == "parquet" else "{}/data-*.arrow"
    data = DatasetCardData(tags=["vqtok"])
    DatasetInfosDict({"default": datasets.DatasetInfo(features=features)}).to_dataset_card_data(data)
    files = [{"split": split, "path": pattern.format(split)} for split in rows]
    MetadataConfigs({"default": {"data_files": files}}).to_dataset_card_data(data)
    text = TEXT.format(
        images=", ".join(f"{counted(number, 'image')} ({split})" for split, number in rows.items()),
        grid=" x ".join(map(str, plan.spec.shape)),
        codebook_size=plan.spec.codebook_size,
        tokenizer=tokenizer_text(plan.spec.fingerprint, plan.spec.repository, plan.spec.revision),
        split=next(iter(rows)),
    )
    store.put(CARD, f"---\n{data.to_yaml()}\n---\n{text}".encode())
