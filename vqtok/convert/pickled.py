"""What pickles of tensors are made of, and what stands for it without being imported or called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["DTYPES", "REBUILT", "Opaque", "StorageRef", "TensorRef", "dict_of"]

DTYPES: Mapping[str, torch.dtype] = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
    "UntypedStorage": torch.uint8,
}


@dataclass(frozen=True, slots=True)
class StorageRef:
    """Numbers that lie elsewhere in the file.

    Attributes:
        key: what the file calls them.
        dtype: their type.
        elements: how many the pickle says there are.
    """

    key: str
    dtype: torch.dtype
    elements: int


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor as some elements of a storage; nothing is checked yet."""

    storage: StorageRef
    offset: Any
    size: Any
    stride: Any


@dataclass(eq=False, slots=True)
class Opaque:
    """Something that a pickle names and that was neither imported nor called.

    Attributes:
        name: its module and name, with a dot.
        args: what it would have been called with; None where the name alone stands there.
        state: what its attributes would have been set to.
        items: what would have been put into it.
    """

    name: str
    args: tuple[Any, ...] | None = None
    state: Any = None
    items: list[Any] = field(default_factory=list)


def dict_of(items: list[Any]) -> dict[Any, Any]:
    """A dict of keys and values in turn; a key that is no number of 60 bits and no text is called by its type.

    Larger whole numbers can be chosen so that all of them have one hash, and a dict of them takes hours.
    """
    pairs = zip(items[::2], items[1::2], strict=True)
    return {key if _plain(key) else repr(type(key)): value for key, value in pairs}


def _plain(key: Any) -> bool:
    return abs(key) < 1 << 60 if isinstance(key, int) else isinstance(key, str | float | None)


def _ordered_dict(items: Any = (), *_: Any) -> dict[Any, Any]:
    return dict_of([part for key, value in items for part in (key, value)])


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
    return TensorRef(storage, offset, size, stride) if isinstance(storage, StorageRef) else Opaque("torch.Tensor", ())


def _typed_tensor(storage: Any, offset: Any, size: Any, stride: Any, *others: Any) -> Any:
    """Of a storage that is bytes; the type is the third of the others."""
    dtype = next((each for each in DTYPES.values() if str(each) == others[2].name), None)  # torch would import some
    if not isinstance(storage, StorageRef) or dtype is None:
        return Opaque("torch.Tensor", ())
    return TensorRef(StorageRef(storage.key, dtype, storage.elements // dtype.itemsize), offset, size, stride)


def _encoded(text: Any = "", *_: Any) -> Any:
    """Bytes, which old protocols write as a text."""
    return text.encode("latin-1", errors="replace") if isinstance(text, str) else Opaque("_codecs.encode", ())


def _first(value: Any = (), *_: Any) -> Any:
    return value


REBUILT: Mapping[str, Callable[..., Any]] = {
    "_codecs.encode": _encoded,
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": lambda *_: {},
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch.Size": _first,
    "torch.jit._pickle.build_boollist": _first,
    "torch.jit._pickle.build_doublelist": _first,
    "torch.jit._pickle.build_intlist": _first,
    "torch.jit._pickle.build_tensorlist": _first,
    "torch.jit._pickle.restore_type_tag": _first,
}
"""What a call of these would give, made without calling them."""
