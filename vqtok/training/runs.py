"""The run folder: a finished model in it, the newest one below a root, the metrics a run leaves behind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from vqtok.errors import CheckpointError, ConfigurationError

__all__ = ["MetricsFile", "newest_model", "prepare_run", "replace_text"]

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


def prepare_run(run: Path, *, resume: bool) -> None:
    """Make the run folder, or refuse: a run is never written over, and only a run is resumed."""
    holds_run = (run / "config.yaml").is_file()
    if resume and not holds_run:
        raise ConfigurationError(f"there is no run to resume in {run}: leave out --resume to start one")
    if not resume and run.exists() and (not run.is_dir() or any(run.iterdir())):
        hint = "go on with --resume, or " if holds_run else ""
        raise ConfigurationError(f"{run} is not empty: {hint}choose another folder with --out")
    run.mkdir(parents=True, exist_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Write a file beside its place and rename it, so that a full disk does not cost the one that was there."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


class MetricsFile:
    """`metrics.jsonl`: one JSON object a line, with the step and the split it speaks of."""

    def __init__(self, run: Path, *, after_step: int) -> None:
        """Open for a run that goes on after a step; rows of later steps, from a part that was lost, are dropped."""
        self.path = run / "metrics.jsonl"
        rows = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if self.path.is_file() else []
        kept = [row for row in rows if row.endswith("\n") and json.loads(row)["step"] <= after_step]
        replace_text(self.path, "".join(kept))

    def add(self, step: int, split: str, values: dict[str, Any]) -> None:
        """Append one row."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
