"""Objects that were read from JSON, checked against the types of a dataclass or a pydantic model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from vqtok.errors import CheckpointError, VqtokError

__all__ = ["checked"]

T = TypeVar("T")
SHOWN = 60  # characters of a value in an error


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
        return TypeAdapter(kind).validate_json(json.dumps(values), strict=True)
    except ValidationError as refused:
        first = refused.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the whole"
    if first["type"] == "missing":
        raise error(f"{name} is damaged: {where} is missing")
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        raise error(f"{name} is damaged: {where} is not a key of it")
    given = repr(first["input"])
    given = given if len(given) <= SHOWN else f"{given[:SHOWN]}..."
    raise error(f"{name} is damaged: {where}: {first['msg'][:1].lower()}{first['msg'][1:]}, got {given}")
