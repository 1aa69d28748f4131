"""Checkpoint files of any origin as trees of tensors: torch's zip and older format, TorchScript, safetensors.

No file runs code here: pickles are read by `unpickle.py`, and of a TorchScript archive only the numbers. Tensors are
views of the file, mapped privately, so that a file of gigabytes takes the memory of what is used of it.
"""

from __future__ import annotations

import mmap
import os
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vqtok.convert.pickled import Opaque, StorageRef, TensorRef
from vqtok.convert.resolving import resolved, walk
from vqtok.convert.unpickle import unpickle
from vqtok.errors import CheckpointError, one_line

__all__ = ["read_checkpoint", "tensors_of"]

MAGIC = 0x1950A86A20F9469CFC6C  # of torch's format before 1.6
PROTOCOL = 1001
MOST_NAMES = 100_000  # a dict that stands in several places has a name at each
LONGEST_NAME = 500
MOST_DIRECTORY = 16 << 20  # bytes of the list of entries of a zip file, of which each takes ten times as much to hold
LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip entry: the lengths of its name and of its extra field


def read_checkpoint(path: str | os.PathLike[str]) -> Any:
    """What a checkpoint file holds, without running any of it.

    Returns:
        Dicts, lists and tuples of tensors, numbers, texts and None, and an `Opaque` for everything else.

    Raises:
        CheckpointError: no such file, none of these formats, or one that is damaged or claims what it does not hold.
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"there is no file {file}")
    if os.path.getsize(file) == 0:
        raise CheckpointError(f"{file} is empty")
    try:
        if file.suffix == ".safetensors":
            return _read_safetensors(file)
        with file.open("rb") as opened:
            zipped = opened.read(4) == b"PK\x03\x04"
            opened.seek(0)
            return _read_zip(opened, str(file)) if zipped else _read_legacy(opened, str(file))
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {one_line(error)}") from error


def tensors_of(tree: Any) -> dict[str, Tensor]:
    """The tensors of a tree by their names, joined with dots; of a module that was pickled, those of its state.

    Raises:
        CheckpointError: a name that is no line of text or a long one, or too many of them.
    """
    found: dict[str, Tensor] = {}
    for number, (name, each) in enumerate(_named(tree, "")):
        if number == MOST_NAMES:
            raise CheckpointError(f"there are more than {MOST_NAMES:,} names in it")
        if isinstance(each, Mapping | Tensor) and (len(name) > LONGEST_NAME or not name.isprintable()):
            raise CheckpointError(f"the names of tensors must be a line of at most {LONGEST_NAME} characters")
        if isinstance(each, Tensor):
            found[name] = each
    return found


def _named(tree: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Everything that has a name, with it."""
    state = tree.state if isinstance(tree, Opaque) else tree
    yield name, state
    if isinstance(state, Mapping):
        for key, value in state.items():
            if key in ("_parameters", "_buffers", "_modules"):
                yield from _named(value, name)
            else:
                yield from _named(value, f"{name}.{key}" if name else str(key))


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  it is no mapping
    except SafetensorError as error:
        raise CheckpointError(f"{file} is damaged, or no safetensors file: {one_line(error)}") from error


def _read_zip(file: BinaryIO, name: str) -> Any:
    """torch.save since 1.6, and TorchScript: an entry for the pickle, one for each storage, none of them compressed."""
    try:
        with zipfile.ZipFile(_Directory(file)) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
    except Exception as error:  # zipfile has no one kind for what it does not understand
        raise CheckpointError(f"{name} is damaged or was cut short: {one_line(error)}") from error
    pickles = [entry for entry in entries if entry.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise CheckpointError(f"{name} is a zip file, and no checkpoint: it has no data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if entries.get(f"{folder}byteorder") is not None and _entry(file, entries[f"{folder}byteorder"], name) != b"little":
        raise CheckpointError(f"{name} was written on a machine of another byte order, which is not read")
    mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    elements = _Elements(name, len(mapped))

    def storage(wanted: StorageRef) -> Tensor:
        entry = entries.get(f"{folder}data/{wanted.key}")
        if entry is None:
            raise CheckpointError(f"{name} is damaged: it lacks the tensor data {wanted.key[:40]!r}")
        start, size = _place(file, entry, name)
        return elements.of(mapped[start : start + size], wanted)

    start, size = _place(file, entries[pickles[0]], name)
    return resolved(unpickle(_Part(mapped[start : start + size]), name=name), storage, name)


class _Directory:
    """A zip file as `zipfile` reads it, which makes an object of every entry that it lists."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = MOST_DIRECTORY) -> bytes:
        if size > MOST_DIRECTORY:
            raise ValueError(f"its list of entries has more than {MOST_DIRECTORY >> 20} MiB")
        return self._file.read(size)


def _place(file: BinaryIO, entry: zipfile.ZipInfo, name: str) -> tuple[int, int]:
    """Where the bytes of an entry lie, and how many there are."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
        raise CheckpointError(f"{name} is no checkpoint: its entry {entry.filename[:60]!r} is compressed")
    file.seek(entry.header_offset)
    header = file.read(LOCAL_HEADER.size)
    total = os.fstat(file.fileno()).st_size
    start = entry.header_offset + LOCAL_HEADER.size + sum(LOCAL_HEADER.unpack(header)) if len(header) == 30 else total
    if start + entry.file_size > total:
        raise _cut_short(f"its entry {entry.filename[:60]!r}", name)
    return start, entry.file_size


def _cut_short(what: str, name: str) -> CheckpointError:
    return CheckpointError(f"{name} is damaged or was cut short: {what} ends past the file")


def _entry(file: BinaryIO, entry: zipfile.ZipInfo, name: str) -> bytes:
    start, size = _place(file, entry, name)
    file.seek(start)
    return file.read(min(size, 64))


def _read_legacy(file: BinaryIO, name: str) -> Any:
    """torch.save before 1.6: three pickles of the format, that of the object, that of the keys, then the storages."""
    if unpickle(file, name=name) != MAGIC or unpickle(file, name=name) != PROTOCOL:
        raise CheckpointError(f"{name} is no checkpoint of torch, and no safetensors file")
    system = unpickle(file, name=name)
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise CheckpointError(f"{name} was written on a machine of another byte order, which is not read")
    tree = unpickle(file, name=name)
    keys = unpickle(file, name=name)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise CheckpointError(f"{name} is damaged: it does not say which tensor data it has")
    wanted = {each.storage.key: each.storage for each in walk(tree, name) if isinstance(each, TensorRef)}
    mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    start, parts, elements = file.tell(), {}, _Elements(name, len(mapped))
    for key in keys:
        if key not in wanted:
            raise CheckpointError(f"{name} is damaged: nothing says what its tensor data {key[:40]!r} are")
        header = mapped[start : start + 8]
        size = int.from_bytes(header, "little") * wanted[key].dtype.itemsize
        if len(header) < 8 or start + 8 + size > len(mapped):
            raise _cut_short(f"its tensor data {key[:40]!r}", name)
        parts[key] = mapped[start + 8 : start + 8 + size]
        start += 8 + size

    def storage(asked: StorageRef) -> Tensor:
        if asked.key not in parts:
            raise CheckpointError(f"{name} is damaged: it lacks the tensor data {asked.key[:40]!r}")
        return elements.of(parts[asked.key], asked)

    return resolved(tree, storage, name)


class _Elements:
    """Storages as flat tensors over the mapped file; where one is not aligned, a copy, of no more than the file."""

    def __init__(self, name: str, size: int) -> None:
        self._name, self._left = name, size

    def of(self, data: memoryview, wanted: StorageRef) -> Tensor:
        number = len(data) // wanted.dtype.itemsize
        if not 0 <= wanted.elements <= number:
            claimed = f"{wanted.elements:,}" if abs(wanted.elements) < 1 << 64 else "too many"
            raise CheckpointError(
                f"{self._name} is damaged: a tensor claims {claimed} numbers, and its data holds {number:,}"
            )
        if number == 0:
            return torch.empty(0, dtype=wanted.dtype)
        flat = torch.frombuffer(data, dtype=torch.uint8, count=number * wanted.dtype.itemsize)
        if flat.data_ptr() % wanted.dtype.itemsize:
            self._left -= len(flat)
            if self._left < 0:
                raise CheckpointError(f"{self._name} is damaged: parts of it are the data of several tensors")
            flat = flat.clone()
        return flat.view(wanted.dtype)


class _Part:
    """Some bytes of the mapped file as a file, without a copy of them all."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    def read(self, size: int) -> bytes:
        found = bytes(self._data[self._at : self._at + size])
        self._at += len(found)
        return found

    def readline(self, size: int) -> bytes:
        length, found = 64, b""
        while len(found) < size and b"\n" not in found:
            part = bytes(self._data[self._at + len(found) : self._at + min(size, length)])
            if not part:
                break
            found, length = found + part, 2 * length
        line = found[: found.find(b"\n") + 1] or found
        self._at += len(line)
        return line
