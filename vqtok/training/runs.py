"""The run folder: a finished model in it, the newest one below a root, the metrics a run leaves behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vqtok.errors import CheckpointError, ConfigurationError
from vqtok.files import check_path, write_text
from vqtok.folders import remove
from vqtok.hub import is_run, read_metric_rows
from vqtok.locks import locked
from vqtok.staging import entries_of

__all__ = ["MetricsFile", "newest_model", "prepare_run"]

KINDS = {
    "tokenizer": (("vqtok",), "vqtok train"),
    "prior": (("llama", "vqtok-pixelcnn"), "vqtok train-prior codes --out runs/prior"),
}


def newest_model(kind: str, root: str | Path = "runs") -> Path:
    """The `model/` folder of the run below `root` that finished last; kind is "tokenizer" or "prior".

    Raises:
        CheckpointError: there is none; says how to make one.
    """
    model_types, command = KINDS[kind]
    found = [config.parent for config in Path(root).glob("*/model/config.json") if model_type(config) in model_types]
    if not found:
        raise CheckpointError(f"no finished {kind} below {root}/: train one with `{command}`, or name one")
    return max(found, key=lambda folder: (folder / "config.json").stat().st_mtime_ns)


def model_type(config: Path) -> str | None:
    """What a config.json is of; None where it cannot be read, for one damaged run must not hide the others."""
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = values.get("model_type") if isinstance(values, dict) else None
    return found if isinstance(found, str) else None


@contextmanager
def prepare_run(run: Path, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Make the run folder and have it for this process alone; only a run is resumed or, if asked for, replaced.

    Raises:
        ConfigurationError: the folder is in use, holds something else, or cannot be written or read back.
    """
    check_path(run)
    if resume and overwrite:
        raise ConfigurationError("--resume goes on with a run and --overwrite replaces it: pass one of them")
    if run.exists() and not run.is_dir():
        raise ConfigurationError(f"{run} is a file, not a folder: choose another folder with --out")
    used = run.exists() and any(entries_of(run))
    if resume and not is_run(run):
        raise ConfigurationError(f"there is no run to resume in {run}: leave out --resume to start one")
    if used and overwrite and not is_run(run):
        raise ConfigurationError(
            f"{run} is not empty and holds no run, so it will not be overwritten: choose another folder with --out"
        )
    if used and not resume and not overwrite:
        hint = "go on with --resume, replace it with --overwrite, or " if is_run(run) else ""
        raise ConfigurationError(f"{run} is not empty: {hint}choose another folder with --out")
    with locked(run):
        if overwrite:
            remove_run(run)
        yield


def remove_run(run: Path) -> None:
    """Remove what a run wrote, its configuration last; other files in the folder stay."""
    for name in ("model", "checkpoints", "samples", "health", "metrics.jsonl", "config.yaml"):
        remove(run / name)


class MetricsFile:
    """`metrics.jsonl`: one JSON object a line, with the step and the split it speaks of."""

    def __init__(self, run: Path, *, after_step: int) -> None:
        """Open for a run that goes on after a step; rows of later steps, from a part that was lost, are dropped.

        Raises:
            CheckpointError: the rows cannot be read.
        """
        self.path = run / "metrics.jsonl"
        kept = [row for row in read_metric_rows(run) if row["step"] <= after_step]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def add(self, step: int, split: str, values: dict[str, Any]) -> None:
        """Append one row."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
