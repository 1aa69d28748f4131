"""Which safetensors files a model consists of, the types and shapes in their headers, and whether they are finite."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from vqtok.errors import CheckpointError
from vqtok.schema import read_object

__all__ = ["INDEX", "WEIGHTS", "Tensors", "check_finite", "check_fit", "read_tensors", "shards", "weight_files"]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

Tensors: TypeAlias = dict[str, tuple[str, tuple[int, ...]]]
"""Type, such as "F32", and shape of each tensor by name."""


def weight_files(folder: Path) -> tuple[str, ...]:
    """Names of the weights in a folder: one file, or an index and the shards that it names.

    Raises:
        CheckpointError: a file that is missing.
    """
    if (folder / WEIGHTS).is_file():
        return (WEIGHTS,)
    if not (folder / INDEX).is_file():
        raise CheckpointError(f"{folder} holds no weights: {WEIGHTS} is missing, save the model again")
    names = shards(folder / INDEX)
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise CheckpointError(f"{folder} lacks the weights {', '.join(missing)} that {INDEX} names")
    return (INDEX, *names)


def shards(index: Path) -> tuple[str, ...]:
    """The files that an index names.

    Raises:
        CheckpointError: no such names, or one with a folder in it.
    """
    named = read_object(index).get("weight_map")
    names = sorted({str(name) for name in named.values()}) if isinstance(named, dict) else []
    if not names:
        raise CheckpointError(f"{index} is damaged: weight_map must say which file holds which tensor")
    for name in names:
        if not re.fullmatch(r"\w[\w.-]*\.safetensors", name):
            raise CheckpointError(f"{index} is damaged: {name!r} is not the name of a safetensors file beside it")
    return tuple(names)


def read_tensors(folder: Path, names: tuple[str, ...]) -> Tensors:
    """What the headers of the safetensors files among `names` say.

    Raises:
        CheckpointError: a file that is cut off or no safetensors file.
    """
    tensors: Tensors = {}
    for name in names:
        if name == INDEX:
            continue
        try:
            with safe_open(folder / name, framework="np") as opened:
                slices = {key: opened.get_slice(key) for key in opened.offset_keys()}
                tensors |= {key: (part.get_dtype(), tuple(part.get_shape())) for key, part in slices.items()}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{folder / name} is no whole safetensors file: {error}") from error
    return tensors


def check_fit(tensors: Tensors, module: nn.Module, *, name: str) -> None:
    """Refuse weights that are not those of a module, before any memory is taken for them.

    Raises:
        CheckpointError: names the first tensors that are missing, unknown or misshapen.
    """
    if found := list(misfits(tensors, module.state_dict())):
        raise CheckpointError(
            f"the weights in {name} do not fit its configuration: {first(found)}; save the model again"
        )


def check_finite(module: nn.Module, *, name: str) -> None:
    """Refuse weights that nothing can be computed with. 100 million take 0.1 s, and 0.5 s to load.

    Raises:
        CheckpointError: names the first tensors that hold NaN or infinity.
    """
    tensors = {key: each for key, each in module.state_dict().items() if each.is_floating_point() and each.numel()}
    # aminmax keeps NaN, and takes a fifth of the time of isfinite().all()
    if found := [key for key, each in tensors.items() if not torch.stack(torch.aminmax(each)).isfinite().all()]:
        raise CheckpointError(
            f"the weights in {name} are not finite: {first(found)}; train the model again, or take another"
        )


def first(names: Sequence[str]) -> str:
    """The first few of many names."""
    return f"{', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"


def misfits(tensors: Tensors, wanted: Mapping[str, object]) -> Iterator[str]:
    yield from (f"{name} is missing" for name in sorted(wanted.keys() - tensors.keys()))
    yield from (f"{name} is unknown" for name in sorted(tensors.keys() - wanted.keys()))
    for name in sorted(wanted.keys() & tensors.keys()):
        shape = tuple(getattr(wanted[name], "shape", ()))
        if tensors[name][1] != shape:
            yield f"{name} is {list(tensors[name][1])} and not {list(shape)}"
