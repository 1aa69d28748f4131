"""Checkpoint files of any origin as trees of tensors: torch's zip and older format, TorchScript, safetensors.

No file runs code here: pickles are read by `unpickle.py`, and of a TorchScript archive only the numbers. Tensors are
views of the file, mapped privately, so that a file of gigabytes takes the memory of what is used of it.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vqtok.convert.pickled import Opaque, StorageRef, TensorRef
from vqtok.convert.unpickle import unpickle
from vqtok.errors import CheckpointError, one_line

__all__ = ["read_checkpoint", "tensors_of"]

MAGIC = 0x1950A86A20F9469CFC6C  # of torch's format before 1.6
PROTOCOL = 1001
MOST_DEPTH = 100  # containers within each other
LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip entry: the lengths of its name and of its extra field

Storages = Callable[[StorageRef], Tensor]
"""Gives the elements of a storage, flat."""


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
    """The tensors of a tree by their names, joined with dots; of a module that was pickled, those of its state."""
    return dict(_tensors(tree, (), set()))


def _tensors(tree: Any, name: tuple[str, ...], above: set[int]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, Tensor):
        yield ".".join(name), tree
    if isinstance(tree, Opaque):
        tree = tree.state
    if not isinstance(tree, Mapping) or id(tree) in above:
        return
    for key, value in tree.items():
        inner = name if key in ("_parameters", "_buffers", "_modules") else (*name, str(key))
        yield from _tensors(value, inner, above | {id(tree)})


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  it is no mapping
    except SafetensorError as error:
        raise CheckpointError(f"{file} is damaged, or no safetensors file: {one_line(error)}") from error


def _read_zip(file: BinaryIO, name: str) -> Any:
    """torch.save since 1.6, and TorchScript: an entry for the pickle, one for each storage, none of them compressed."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise CheckpointError(f"{name} is damaged or was cut short: {one_line(error)}") from error
    pickles = [entry for entry in entries if entry.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise CheckpointError(f"{name} is a zip file, and no checkpoint: it has no data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if entries.get(f"{folder}byteorder") is not None and _entry(file, entries[f"{folder}byteorder"], name) != b"little":
        raise CheckpointError(f"{name} was written on a machine of another byte order, which is not read")
    mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))

    def storage(wanted: StorageRef) -> Tensor:
        entry = entries.get(f"{folder}data/{wanted.key}")
        if entry is None:
            raise CheckpointError(f"{name} is damaged: it lacks the tensor data {wanted.key[:40]!r}")
        start, size = _place(file, entry, name)
        return _elements(mapped[start : start + size], wanted, name)

    start, size = _place(file, entries[pickles[0]], name)
    return _resolved(unpickle(_Part(mapped[start : start + size]), name=name), storage, name)


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
    wanted = {each.storage.key: each.storage for each in _walk(tree, name) if isinstance(each, TensorRef)}
    mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    start, parts = file.tell(), {}
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
        return _elements(parts[asked.key], asked, name)

    return _resolved(tree, storage, name)


def _elements(data: memoryview, wanted: StorageRef, name: str) -> Tensor:
    """A storage as a flat tensor over the mapped file; where that is not aligned, a copy."""
    number = len(data) // wanted.dtype.itemsize
    if wanted.elements < 0 or wanted.elements * wanted.dtype.itemsize > len(data):
        raise CheckpointError(
            f"{name} is damaged: a tensor claims {wanted.elements:,} numbers, and its data holds {number:,}"
        )
    if number == 0:
        return torch.empty(0, dtype=wanted.dtype)
    flat = torch.frombuffer(data, dtype=torch.uint8, count=number * wanted.dtype.itemsize)
    if flat.data_ptr() % wanted.dtype.itemsize:
        flat = flat.clone()
    return flat.view(wanted.dtype)


def _walk(tree: Any, name: str) -> Iterator[Any]:
    """Every object of a tree, each once."""
    seen: set[int] = set()
    waiting = [(tree, 0)]
    while waiting:
        each, depth = waiting.pop()
        if id(each) in seen:
            continue
        if depth > MOST_DEPTH:
            raise CheckpointError(f"{name} is no checkpoint: it nests containers more than {MOST_DEPTH} deep")
        seen.add(id(each))
        yield each
        waiting += [(inner, depth + 1) for inner in _inside(each)]


def _inside(each: Any) -> list[Any]:
    if isinstance(each, dict):
        return list(each.values())
    if isinstance(each, Opaque):
        return [*(each.args or ()), each.state, *each.items]
    return list(each) if isinstance(each, list | tuple) else []


def _resolved(tree: Any, storage: Storages, name: str) -> Any:
    """The tree with its tensors; what stands in several places becomes one object, and nothing may hold itself."""
    for _ in _walk(tree, name):  # its depth is checked before anything calls itself
        pass
    done: dict[int, Any] = {}
    under_way: set[int] = set()
    flat: dict[str, Tensor] = {}

    def tensor(ref: TensorRef) -> Tensor:
        if (key := f"{ref.storage.key}/{ref.storage.dtype}") not in flat:
            flat[key] = storage(ref.storage)
        return _tensor(flat[key], ref, name)

    def resolve(each: Any) -> Any:
        if not isinstance(each, dict | list | tuple | Opaque | TensorRef | StorageRef):
            return each
        if id(each) in done:
            return done[id(each)]
        if id(each) in under_way:
            raise CheckpointError(f"{name} is no checkpoint: a container in it holds itself")
        under_way.add(id(each))
        made: Any
        if isinstance(each, TensorRef):
            made = tensor(each)
        elif isinstance(each, StorageRef):
            made = storage(each)
        elif isinstance(each, dict):
            made = {key: resolve(value) for key, value in each.items()}
        elif isinstance(each, Opaque):
            args = None if each.args is None else tuple(map(resolve, each.args))
            made = Opaque(each.name, args, resolve(each.state), list(map(resolve, each.items)))
        else:
            made = type(each)(map(resolve, each))
        under_way.discard(id(each))
        done[id(each)] = made
        return made

    return resolve(tree)


def _tensor(flat: Tensor, ref: TensorRef, name: str) -> Tensor:
    """The part of a storage that a tensor is."""
    size, stride = ref.size, ref.stride
    whole = isinstance(size, list | tuple) and isinstance(stride, list | tuple) and len(size) == len(stride)
    if not whole or not all(type(each) is int and each >= 0 for each in (ref.offset, *size, *stride)):
        raise CheckpointError(f"{name} is damaged: a tensor has no shape")
    elements = math.prod(size)
    last = ref.offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if elements > len(flat) or (elements and last >= len(flat)):
        raise CheckpointError(
            f"{name} is damaged: a tensor of shape {list(size)} claims {elements:,} numbers, and its data holds "
            f"{len(flat):,}"
        )
    return flat.as_strided(list(size), list(stride), ref.offset) if elements else flat.new_empty(list(size))


class _Part:
    """Some bytes of the mapped file as a file, without a copy of them all."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    def read(self, size: int) -> bytes:
        found = bytes(self._data[self._at : self._at + size])
        self._at += len(found)
        return found

    def readline(self, size: int) -> bytes:
        found = bytes(self._data[self._at : self._at + size])
        line = found[: found.find(b"\n") + 1] or found
        self._at += len(line)
        return line
