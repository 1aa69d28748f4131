"""JSON that others may have written: read with care, and checked against a dataclass or a pydantic model."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from vqtok.errors import CheckpointError, VqtokError, shortened
from vqtok.files import MOST_TEXT, read_text

__all__ = ["checked", "integer", "read_object"]

T = TypeVar("T")
DIGITS = 19  # of an integer of 64 bits, as tensors hold them; longer ones would take long to read


def checked(kind: type[T], values: Mapping[str, Any], *, name: str, error: type[VqtokError] = CheckpointError) -> T:
    """The values as an instance of `kind`; types are those of JSON and nothing is converted.

    Args:
        kind: a dataclass or a pydantic model. Unknown keys are ignored unless it forbids them.
        values: what was read.
        name: what the error calls the place it was read from.
        error: the type of the error.

    Raises:
        VqtokError: one line with the first entry that is missing, unknown or of another type.
    """
    try:
        adapter: TypeAdapter[T] = _adapter(cast(Hashable, kind))
        return adapter.validate_json(json.dumps(values), strict=True)
    except ValidationError as refused:
        first = refused.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the whole"
    if first["type"] == "missing":
        raise error(f"{name} is damaged: {where} is missing")
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        raise error(f"{name} is damaged: {where} is not a key of it")
    what = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
    raise error(f"{name} is damaged: {where}: {what}, got {shortened(first['input'])}")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Made once: making one takes ten times as long as checking a small object, and there are thousands of receipts."""
    return TypeAdapter(kind)


def read_object(path: Path, *, most: int = MOST_TEXT) -> dict[str, Any]:
    """The JSON object that a regular file of at most `most` bytes holds.

    Raises:
        CheckpointError: it cannot be read, is not an object, or holds NaN, infinity or integers that no tensor holds.
    """
    try:
        text = read_text(path, most=most)
        value = json.loads(text, parse_int=integer, parse_constant=no_number)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, found {type(value).__name__}")
    return value


def integer(digits: str) -> int:
    """An integer of JSON. Raises ValueError where no tensor could hold it."""
    if len(digits.lstrip("-")) > DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    if not -(2**63) <= (value := int(digits)) < 2**63:
        raise ValueError(f"an integer of more than 64 bits, {digits}")
    return value


def no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")
