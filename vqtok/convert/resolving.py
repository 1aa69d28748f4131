"""What a pickle described, with its tensors: every one checked against the data that it is a part of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from vqtok.convert.pickled import Opaque, StorageRef, TensorRef
from vqtok.errors import CheckpointError

__all__ = ["Storages", "resolved", "walk"]

MOST_DEPTH = 100  # containers within each other
MOST_DIMENSIONS = 16
LARGEST = 1 << 48  # of sizes, strides and offsets

REBUILT = (dict, list, tuple, Opaque, TensorRef, StorageRef)

Storages = Callable[[StorageRef], Tensor]
"""Gives the elements of a storage, flat."""


def walk(tree: Any, name: str) -> Iterator[Any]:
    """Every object of a tree, each once."""
    seen: set[int] = set()
    waiting = [tree]
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += _inside(each)


def _inside(each: Any) -> list[Any]:
    if isinstance(each, dict):
        return list(each.values())
    if isinstance(each, Opaque):
        return [*(each.args or ()), each.state, *each.items]
    return list(each) if isinstance(each, list | tuple) else []


def resolved(tree: Any, storage: Storages, name: str) -> Any:
    """The tree with its tensors; what stands in several places becomes one object, and nothing may hold itself.

    Raises:
        CheckpointError: containers that hold themselves or nest too deep, or a tensor that its data does not hold.
    """
    return _Resolution(storage, name).of(tree, 0)


class _Resolution:
    """What was resolved so far, by the identity of what described it."""

    def __init__(self, storage: Storages, name: str) -> None:
        self.storage, self.name = storage, name
        self.done: dict[int, Any] = {}
        self.under_way: set[int] = set()
        self.flat: dict[StorageRef, Tensor] = {}

    def of(self, each: Any, depth: int) -> Any:
        if not isinstance(each, REBUILT):
            return each
        if id(each) in self.done:
            return self.done[id(each)]
        if id(each) in self.under_way:
            raise CheckpointError(f"{self.name} is no checkpoint: a container in it holds itself")
        if depth > MOST_DEPTH:
            raise CheckpointError(f"{self.name} is no checkpoint: it nests containers more than {MOST_DEPTH} deep")
        self.under_way.add(id(each))
        made = self.made(each, depth + 1)
        self.under_way.discard(id(each))
        self.done[id(each)] = made
        return made

    def made(self, each: Any, depth: int) -> Any:
        if isinstance(each, TensorRef):
            return _tensor(self.data(each.storage), each, self.name)
        if isinstance(each, StorageRef):
            return self.data(each)
        if isinstance(each, dict):
            return {key: self.of(value, depth) for key, value in each.items()}
        if isinstance(each, Opaque):
            args = None if each.args is None else tuple(self.of(part, depth) for part in each.args)
            items = [self.of(part, depth) for part in each.items]
            return Opaque(each.name, args, self.of(each.state, depth), items)
        return type(each)([self.of(part, depth) for part in each])

    def data(self, wanted: StorageRef) -> Tensor:
        if wanted not in self.flat:
            self.flat[wanted] = self.storage(wanted)
        return self.flat[wanted]


def _tensor(flat: Tensor, ref: TensorRef, name: str) -> Tensor:
    """The part of a storage that a tensor is."""
    size, stride = ref.size, ref.stride
    whole = isinstance(size, list | tuple) and isinstance(stride, list | tuple) and len(size) == len(stride)
    if not whole or len(size) > MOST_DIMENSIONS or not all(map(_is_length, (ref.offset, *size, *stride))):
        raise CheckpointError(f"{name} is damaged: a tensor has no shape")
    elements = math.prod(size)
    last = ref.offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if elements > len(flat) or (elements and last >= len(flat)):
        raise CheckpointError(
            f"{name} is damaged: a tensor of shape {list(size)} claims {elements:,} numbers, and its data holds "
            f"{len(flat):,}"
        )
    return flat.as_strided(list(size), list(stride), ref.offset) if elements else flat.new_empty(list(size))


def _is_length(number: Any) -> bool:
    return type(number) is int and 0 <= number < LARGEST
