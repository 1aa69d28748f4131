"""Find codes by a name: a folder of `save_to_disk` or `vqtok tokenize`, parquet and Arrow files, a dataset on the Hub.

What `save_to_disk` wrote is memory-mapped where it lies, and so is such a folder that was pushed to the Hub, where it
lies in the cache. All else goes through the builders of `datasets`, which copy it to their own cache unless it is
streamed.
"""

from __future__ import annotations

import glob
import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import (
    Dataset,
    DatasetBuilder,
    DatasetDict,
    Features,
    IterableDatasetDict,
    NamedSplit,
    load_dataset_builder,
)
from huggingface_hub import constants, snapshot_download

from vqtok.codes.assemble import places_of
from vqtok.codes.binding import AnyCodes, CodeSet, StreamedCodes, splits_of
from vqtok.codes.card import CARD, is_unfinished
from vqtok.codes.plan import read_plan
from vqtok.codes.sidecar import read_sidecar
from vqtok.codes.spec import COLUMN, SIDECAR, SPLIT_NAME, CodesSpec
from vqtok.data.folders import list_files
from vqtok.data.globs import matching_addresses
from vqtok.data.saved import is_saved, load_saved
from vqtok.data.tables import build, check_own, loading, open_tables, read_files, stream, table_builder, table_kind
from vqtok.errors import DataError
from vqtok.files import read_text
from vqtok.hub import hub_errors
from vqtok.names import hub_name
from vqtok.retries import persistently
from vqtok.store import Store, file_system, is_url

__all__ = ["Opened", "files_of", "is_codes", "is_on_hub", "open_codes", "read_schema", "tables_in"]

KINDS = ("parquet", "arrow")  # of files that hold codes
THREADS = 8  # files whose columns are looked at at a time
HEAD = 1 << 16  # bytes of a remote file that are read for its columns
# What lies beside the shards of a codes folder on the Hub, in its own words and those of `save_to_disk`.
SMALL = ("README.md", SIDECAR, "dataset_dict.json", "*state.json", "*dataset_info.json")


@dataclass(frozen=True, kw_only=True)
class Opened:
    """Codes as they were found.

    Attributes:
        codes: one split, or several by name; as they lie, with or without a binding.
        folder: where a sidecar may lie beside them.
        specs: what single files say that is lost once they are joined.
    """

    codes: AnyCodes
    folder: Path | str | None = None
    specs: tuple[CodesSpec, ...] = ()


def open_codes(place: str | Path, *, streaming: bool = False) -> Opened:
    """Open codes by their name.

    Args:
        place: a folder, a parquet or Arrow file, a pattern of such files (`codes/*.parquet`), an address of any of
            these such as s3://bucket/codes, or a Hub id (`org/codes`, `org/codes@revision`).
        streaming: give datasets that are read row by row, of which nothing is copied and, from the Hub, only what is
            asked for is downloaded.

    Raises:
        ConfigurationError: an address of a kind that is not known, or whose package is not installed.
        DataError: there is nothing of this name, or it cannot be read.
        HubError: the Hub does not have it, does not give it, or cannot be reached.
    """
    path, name = Path(os.path.expanduser(place)), str(place)
    if is_url(name):
        return _open_store(Store(name), streaming)
    if path.is_dir():
        return _open_folder(path, name, streaming)
    if files := files_of(path):
        return _open_files(files, name, streaming)
    if found := hub_name(name):
        return _open_hub(*found, streaming)
    raise DataError(
        f"no codes at {name}: make some with `vqtok tokenize <images> --out {name}`, or name a codes folder, a parquet "
        "file or a dataset on the Hub such as org/codes"
    )


def files_of(path: Path) -> list[str]:
    """The file of this name, or those that it is a pattern of, in their order."""
    return [str(path)] if path.is_file() else sorted(file for file in glob.glob(str(path)) if os.path.isfile(file))


def is_codes(folder: Path) -> bool:
    """Whether a folder looks like one of codes: saved by `datasets`, or with a codes.json."""
    return is_saved(folder) or (folder / SIDECAR).is_file()


def is_on_hub(place: str | Path) -> bool:
    """Whether a name stands for a dataset on the Hub: `org/codes` or `org/codes@revision`, and nothing on this disk."""
    return hub_name(str(place)) is not None


def _open_store(store: Store, streaming: bool) -> Opened:
    """Codes at an address: where there is a plan, its shards; else the files of rows there."""
    if store.is_local:
        return open_codes(store.folder, streaming=streaming)
    plan = read_plan(store)
    own = f"{store.fs.unstrip_protocol(store.root)}/"
    if plan is not None:
        if _is_unfinished(store):
            raise _not_finished(store.place)
        files = {split: own + pattern for split, pattern in places_of(plan).items()}
        with loading(store.place):
            builder = load_dataset_builder(plan.request.format, data_files=files)
        return _from_builder(builder, own, store.place, streaming, folder=store.place)
    with loading(store.place):
        folder, found = persistently(lambda: matching_addresses(store.place), f"listing {store.place}")
    if not (tables := [file for file in found if table_kind(file) in KINDS]):
        raise DataError(f"no codes at {store.place}: make some with `vqtok tokenize <images> --out {store.place}`")
    builders, _ = read_files(f"{folder}/", store.place, tables, lambda builder, _: {"": builder})
    return _from_builder(builders[""], f"{folder}/", store.place, streaming, folder=folder)


def _open_folder(path: Path, name: str, streaming: bool) -> Opened:
    if _is_unfinished(Store(path)):
        raise _not_finished(name)
    if is_saved(path):
        saved = _load(path)
        return Opened(codes=_streamed(saved) if streaming else saved, folder=path)
    if not (tables := tables_in(path)):
        if is_codes(path):
            raise DataError(
                f"{name} holds a {SIDECAR} and no codes, not yet or no longer: run the same `vqtok tokenize` again"
            )
        raise DataError(f"{name} is not a codes folder: make one with `vqtok tokenize <images> --out codes`")
    builder, own, _ = open_tables(path, name, tables, None)
    return _from_builder(builder, own, name, streaming, folder=path)


def _is_unfinished(store: Store) -> bool:
    with suppress(OSError, ValueError):
        return is_unfinished(read_text(store.folder / CARD) if store.is_local else store.read(CARD).decode())
    return False


def _not_finished(name: str) -> DataError:
    return DataError(f"the codes in {name} are not finished: run the same `vqtok tokenize` again, which goes on")


def tables_in(folder: Path) -> list[str]:
    """The parquet and Arrow files of a folder that may hold codes, relative to it."""
    return [file for file in list_files(folder).others if table_kind(file) in KINDS]


def _open_files(files: list[str], name: str, streaming: bool) -> Opened:
    kinds = {table_kind(file) for file in files}
    (kind, *others) = kinds
    if kind not in KINDS or others:
        raise DataError(f"{name} holds no codes: a file of codes is parquet or Arrow")
    own = [os.path.join(os.path.realpath(os.path.dirname(file)), os.path.basename(file)) for file in files]
    with loading(name):
        builder = table_builder(kind, {"train": own})
    return _from_builder(builder, os.path.commonprefix(own), name, streaming)


def _open_hub(repo_id: str, revision: str | None, streaming: bool) -> Opened:
    where: dict[str, Any] = {"repo_type": "dataset", "endpoint": constants.ENDPOINT}
    with hub_errors(repo_id):
        folder = Path(snapshot_download(repo_id, revision=revision, allow_patterns=[*SMALL], **where))
        if is_saved(folder) and not streaming:
            snapshot_download(repo_id, revision=folder.name, allow_patterns="*.arrow", **where)
            return Opened(codes=_load(folder), folder=folder)
        with loading(repo_id):
            builder = load_dataset_builder(repo_id, revision=folder.name)
        return _from_builder(builder, f"hf://datasets/{repo_id}@", repo_id, streaming, folder=folder)


def _from_builder(
    builder: DatasetBuilder, own: str, name: str, streaming: bool, *, folder: Path | str | None = None
) -> Opened:
    with loading(name):
        check_own(builder, own)
    remote = is_url(own)  # there a sidecar speaks for all files, of which there can be thousands
    specs = () if remote and folder and read_sidecar(folder) else tuple(_specs_of_files(builder, name))
    with loading(name):
        if streaming:
            return Opened(codes=_unwrapped(IterableDatasetDict(stream(builder, own))), folder=folder, specs=specs)
        return Opened(codes=_unwrapped(DatasetDict(build(builder, own))), folder=folder, specs=specs)


def _specs_of_files(builder: DatasetBuilder, name: str) -> list[CodesSpec]:
    """What each file says: `datasets` takes the columns of the first for those of all."""
    files = [str(file) for files in (builder.config.data_files or {}).values() for file in files]
    with loading(name), ThreadPoolExecutor(THREADS) as pool:
        columns = [Features.from_arrow_schema(schema).get(COLUMN) for schema in pool.map(read_schema, files)]
        specs = (CodesSpec.from_feature(column, name=file) for column, file in zip(columns, files, strict=True))
        return [spec for spec in specs if spec]


def read_schema(file: str) -> pa.Schema:
    """The schema of a parquet file or an Arrow stream, by its path or its address."""
    if is_url(file):
        system, path = file_system(file)
        with persistently(lambda: system.open(path, "rb", block_size=HEAD), f"reading {file}") as opened:
            return pq.read_schema(opened) if file.endswith(".parquet") else pa.ipc.open_stream(opened).schema
    if file.endswith(".parquet"):
        return pq.read_schema(file)
    with pa.memory_map(file) as source, pa.ipc.open_stream(source) as reader:
        return reader.schema


def _load(path: Path) -> CodeSet:
    try:
        return _unwrapped(load_saved(path))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or ["?"])[0]
        raise DataError(f"the codes in {path} are damaged ({reason}): tokenize the images again") from error


def _streamed(codes: CodeSet) -> StreamedCodes:
    if isinstance(codes, DatasetDict):
        return IterableDatasetDict({name: _streamed(split) for name, split in codes.items()})
    streamed = codes.to_iterable_dataset(num_shards=max(1, min(len(codes), len(codes.cache_files))))
    streamed.info.description = codes.info.description  # which `datasets` leaves behind
    return streamed


def _unwrapped(codes: AnyCodes) -> AnyCodes:
    """The split where there is only one, which then knows its name."""
    splits = splits_of(codes)
    if len(splits) > 1 or not isinstance(codes, DatasetDict | IterableDatasetDict):
        return codes
    ((name, only),) = splits.items()
    if isinstance(only, Dataset) and only.split is None and re.fullmatch(SPLIT_NAME, name):
        split = NamedSplit(name)
        return Dataset(only.data, info=only.info, split=split, fingerprint=only._fingerprint)
    return only
