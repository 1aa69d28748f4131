"""config.json as somebody else may have written it: what could fetch or run code is refused before anything obeys it.

transformers sets every key of a config.json as an attribute of the configuration. An attention implementation
"owner/name" there is a kernel that it downloads and runs, and `quantization_config` loads another library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from vqtok.errors import CheckpointError
from vqtok.schema import checked, read_object

__all__ = ["CONFIG", "DTYPES", "check_settings", "read_settings"]

CONFIG = "config.json"
DTYPES = Literal["bfloat16", "float16", "float32", "float64"]
FORBIDDEN = re.compile(
    "implementation|kernel(?!_size)|quantization|compression|auto_map|remote|configuration_files|per_layer|custom|adapter"
)
MOST_LAYERS = 10_000  # and codebooks: each is built before the weights can tell that there are not so many


class Common(BaseModel):
    """What every config.json may hold."""

    model_type: str
    dtype: DTYPES | None = None
    torch_dtype: DTYPES | None = None  # as transformers 4 called it


def read_settings(folder: Path) -> dict[str, Any]:
    """The object in a folder's config.json.

    Raises:
        CheckpointError: it cannot be read, or `check_settings` refuses it.
    """
    values = read_object(folder / CONFIG)
    check_settings(values, name=str(folder / CONFIG))
    return values


def check_settings(values: Mapping[str, Any], *, name: str) -> None:
    """Refuse settings that could fetch or run code, and numbers of layers that would take for ever to build.

    Raises:
        CheckpointError: names the key.
    """
    for key in values:
        if FORBIDDEN.search(key):
            raise CheckpointError(
                f"{name} sets {key!r}, which no model of vqtok needs and which could fetch or run code: remove it to "
                "load the rest"
            )
    checked(Common, values, name=name)
    for key, value in numbers(values):
        if key.startswith("num_") and value > MOST_LAYERS:
            raise CheckpointError(f"{name} is damaged: {key} must be at most {MOST_LAYERS:,}, got {value}")


def numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Keys and numbers of an object and of the objects in it."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from numbers(value)
        elif isinstance(value, int | float):
            yield key, value
