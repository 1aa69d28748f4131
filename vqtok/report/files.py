"""Reading the files that a run left behind; whatever is damaged is named in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from vqtok.errors import CheckpointError

__all__ = ["read_yaml"]


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        CheckpointError: it cannot be read, or holds no mapping.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold key: value lines, found {type(value).__name__}")
    return value
