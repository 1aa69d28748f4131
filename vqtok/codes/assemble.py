"""The last step of a codes folder: every receipt is held against the plan, then the files that make it load."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from vqtok.codes.card import CARD, codes_card, is_of_people, is_unfinished, unfinished_card, with_files
from vqtok.codes.layout import BAD_IMAGES, BAD_SCHEMA, SPLITS
from vqtok.codes.plan import Plan, Shard
from vqtok.codes.receipt import Receipt
from vqtok.codes.spec import SPLIT_NAME
from vqtok.errors import DataError
from vqtok.store import Store

__all__ = ["assemble", "is_assembled", "places_of", "unfinished_card_of"]

UNFINISHED = """---
tags:
- vqtok
---
# Codes that are being written

`vqtok tokenize` has not finished here, so there is nothing to load yet. The same command goes on where it stopped.
"""
INFO = "dataset_info.json"
Done = Sequence[tuple[Shard, Receipt]]


def assemble(plan: Plan, store: Store, receipts: Mapping[str, Receipt]) -> None:
    """Make a dataset of the shards of a plan, all of which are done. What is written depends on them alone.

    Args:
        receipts: of every shard, by its name.

    Raises:
        DataError: a shard is missing, or no image of a split can be read.
    """
    sizes, done = store.sizes(), []
    for shard in plan.shards():
        receipt = receipts.get(shard.name)
        if receipt is None or sizes.get(shard.file) != receipt.bytes or shard.receipt not in sizes:
            raise DataError(f"{store.place} is not finished: its shard {shard.name} is missing; run the same again")
        done.append((shard, receipt))
    splits = {name: list(pairs) for name, pairs in groupby(done, lambda pair: pair[0].split)}
    rows = {name: _rows(name, pairs) for name, pairs in splits.items()}
    _write_bad_images(store, done)
    if plan.request.format == "arrow":
        for name, pairs in splits.items():
            _write_split(store, plan, name, pairs)
    features = plan.splits[0].features(plan.spec)
    store.put(CARD, _card(store, plan, features, rows).encode())
    if plan.request.format == "arrow":
        store.put(SPLITS, json.dumps({"splits": list(splits)}).encode())


def is_assembled(plan: Plan, store: Store) -> bool:
    """Whether all that `assemble` writes is there; the shards are not looked at."""
    names = {BAD_IMAGES, CARD}
    if plan.request.format == "arrow":
        names |= {SPLITS, *(f"{split.name}/{file}" for split in plan.splits for file in ("state.json", INFO))}
    return names <= store.sizes().keys() and not is_unfinished(store.read(CARD).decode(errors="replace"))


def unfinished_card_of(plan: Plan) -> bytes:
    """The card that lets `load_dataset` refuse the folder until all of it is there."""
    return unfinished_card(UNFINISHED, places_of(plan)).encode()


def places_of(plan: Plan) -> dict[str, str]:
    """Where the files of each split lie, as a pattern."""
    pattern = "data/{}-*.parquet" if plan.request.format == "parquet" else "{}/data-*.arrow"
    return {split.name: pattern.format(split.name) for split in plan.splits}


def _card(store: Store, plan: Plan, features: datasets.Features, rows: Mapping[str, int]) -> str:
    """The card; of one that people wrote in its place the text stays."""
    with suppress(FileNotFoundError):
        text = store.read(CARD).decode(errors="replace")
        if is_of_people(text):
            return with_files(text, features, places_of(plan))
    return codes_card(plan.spec, features, rows, places_of(plan), Path(store.place).name)


def _rows(split: str, done: Done) -> int:
    rows = sum(receipt.rows for _, receipt in done)
    if not rows:
        example = next(image.reason for _, receipt in done for image in receipt.bad)
        raise DataError(f"no image of the split {split} can be read, such as: {example}")
    return rows


def _write_bad_images(store: Store, done: Done) -> None:
    bad = [(shard.split, image) for shard, receipt in done for image in receipt.bad]
    rows = [(split, image.row, image.name, image.reason) for split, image in bad]
    columns = zip(BAD_SCHEMA.names, zip(*rows, strict=True), strict=True) if rows else ()
    table = pa.table({name: list(values) for name, values in columns}, BAD_SCHEMA) if rows else BAD_SCHEMA.empty_table()
    sink = io.BytesIO()
    pq.write_table(table, sink)
    store.put(BAD_IMAGES, sink.getvalue())


def _write_split(store: Store, plan: Plan, split: str, done: Done) -> None:
    """Write what `load_from_disk` reads of a split; its fingerprint, by which `datasets` caches, is of the bytes."""
    features = plan.split(split).features(plan.spec)
    info = datasets.DatasetInfo(description=plan.spec.to_json(), features=features)
    with tempfile.TemporaryDirectory() as folder:
        info.write_to_directory(folder, pretty_print=True)
        store.put(f"{split}/{INFO}", (Path(folder) / INFO).read_bytes())
    digest = hashlib.sha256(plan.spec.to_json().encode())
    for _, receipt in done:
        digest.update(receipt.sha256.encode())
    state: dict[str, Any] = {
        "_data_files": [{"filename": shard.file.rpartition("/")[2]} for shard, _ in done],
        "_fingerprint": digest.hexdigest()[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split if re.fullmatch(SPLIT_NAME, split) else None,  # else unreadable
    }
    store.put(f"{split}/state.json", json.dumps(state, indent=2, sort_keys=True).encode())
