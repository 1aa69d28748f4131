"""The last step of a codes folder: every receipt is held against the plan, then the files that make it load."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from vqtok.codes.card import CARD, codes_card, is_of_people, is_unfinished, names_files, unfinished_card, with_files
from vqtok.codes.layout import BAD_IMAGES, BAD_SCHEMA, SPLITS
from vqtok.codes.plan import Plan, Shard
from vqtok.codes.receipt import Receipt
from vqtok.codes.spec import SPLIT_NAME, CodesSpec
from vqtok.errors import DataError
from vqtok.store import Store

__all__ = ["assemble", "places_of", "unfinished_card_of", "wrong_files"]

UNFINISHED = """---
tags:
- vqtok
---
# Codes that are being written

`vqtok tokenize` has not finished here, so there is nothing to load yet. The same command goes on where it stopped.
"""
INFO = "dataset_info.json"
STATE = "state.json"
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
    rows = {name: _rows(name, pairs) for name, pairs in _splits(done)}
    files = _files(plan, done)
    last = files.pop(SPLITS, None)
    for name, content in files.items():
        store.put(name, content)
    store.put(CARD, _card(store, plan, plan.splits[0].features(plan.spec), rows).encode())
    if last is not None:
        store.put(SPLITS, last)


def wrong_files(plan: Plan, store: Store, receipts: Mapping[str, Receipt]) -> Iterator[tuple[str, str]]:
    """The files that `assemble` would write anew, each with what is wrong with it; the shards are not looked at.

    Args:
        receipts: as in `assemble`.
    """
    for name, content in _files(plan, [(shard, receipts[shard.name]) for shard in plan.shards()]).items():
        parse = CONTENTS[PurePosixPath(name).name]
        try:
            same = parse(store.read(name)) == parse(content)
        except FileNotFoundError:
            yield name, "it is missing"
        except (ValueError, KeyError, TypeError, RecursionError, pa.ArrowException):
            yield name, "it is damaged"
        except DataError as error:
            yield name, str(error)
        else:
            if not same:
                yield name, "it is not what the receipts say"
    try:
        text = store.read(CARD).decode(errors="replace")
        if is_unfinished(text):
            yield CARD, "it says that the codes are not finished"
        elif not names_files(text, places_of(plan)):
            yield CARD, "it does not say where the shards are"
    except FileNotFoundError:
        yield CARD, "it is missing"
    except DataError as error:
        yield CARD, str(error)


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


def _splits(done: Done) -> Iterator[tuple[str, Done]]:
    return ((name, list(pairs)) for name, pairs in groupby(done, lambda pair: pair[0].split))


def _files(plan: Plan, done: Done) -> dict[str, bytes]:
    """What lies beside the shards and the card, by name."""
    files = {BAD_IMAGES: _bad_images(done)}
    if plan.request.format == "arrow":
        for name, pairs in _splits(done):
            files[f"{name}/{INFO}"] = _info(plan, name)
            files[f"{name}/{STATE}"] = _state(plan, name, pairs)
        files[SPLITS] = json.dumps({"splits": [split.name for split in plan.splits]}).encode()
    return files


def _bad_images(done: Done) -> bytes:
    rows = [(shard.split, image.row, image.name, image.reason) for shard, receipt in done for image in receipt.bad]
    columns = zip(BAD_SCHEMA.names, zip(*rows, strict=True), strict=True) if rows else ()
    table = pa.table({name: list(values) for name, values in columns}, BAD_SCHEMA) if rows else BAD_SCHEMA.empty_table()
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def _info(plan: Plan, split: str) -> bytes:
    """What `load_from_disk` reads of the columns."""
    info = datasets.DatasetInfo(description=plan.spec.to_json(), features=plan.split(split).features(plan.spec))
    with tempfile.TemporaryDirectory() as folder:
        info.write_to_directory(folder, pretty_print=True)
        return (Path(folder) / INFO).read_bytes()


def _state(plan: Plan, split: str, done: Done) -> bytes:
    """What `load_from_disk` reads of the files; the fingerprint, by which `datasets` caches, is of their bytes."""
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
    return json.dumps(state, indent=2, sort_keys=True).encode()


def _columns(content: bytes) -> tuple[Any, Any]:
    """What matters of a dataset_info.json: other versions of `datasets` write other keys, and `bind` another place."""
    info = json.loads(content)
    with suppress(DataError):
        return CodesSpec.from_json(info["description"], name=INFO).identity, info["features"]
    return None, info["features"]


def _rows_of(content: bytes) -> dict[str, Any]:
    """What matters of a state.json, in which `bind` writes a fingerprint of its own."""
    state: dict[str, Any] = json.loads(content)
    return state | {"_fingerprint": type(state["_fingerprint"])}


CONTENTS: dict[str, Callable[[bytes], Any]] = {
    BAD_IMAGES: lambda content: pq.read_table(pa.BufferReader(content)),
    INFO: _columns,
    STATE: _rows_of,
    SPLITS: json.loads,
}
"""What a file says, by its name, whichever versions of pyarrow and `datasets` wrote it."""
