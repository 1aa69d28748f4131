"""Reading the files that a run left behind; whatever is damaged is named in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from vqtok.errors import CheckpointError

__all__ = ["read_metric_rows", "read_yaml"]


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


def read_metric_rows(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, none where there is no such file; a last line that was cut off is left out.

    Raises:
        CheckpointError: a line that is no row.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        return []
    lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    try:
        rows = [json.loads(line) for line in lines]
        return [row for row in rows if isinstance(row["step"], int) and isinstance(row["split"], str)]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: every line must be an object with step and split") from error
