"""The run folder: a finished model in it, the newest one below a root, the metrics a run leaves behind."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vqtok.errors import CheckpointError, ConfigurationError
from vqtok.files import check_path, check_writable, write_text
from vqtok.folders import check_ours, clear_folder, remove
from vqtok.hub import HEALTH, IMAGES_RECORD, Kind, is_health, is_run, kind_of, read_metric_rows, read_settings
from vqtok.locks import OWNER_FILE, locked
from vqtok.staging import entries_of, is_folder
from vqtok.training.checkpoint import CHECKPOINT_FILES, MODEL_FILES

__all__ = ["MetricsFile", "check_run", "newest_model", "prepare_run"]

HEALTH_FILES = r"health/((frequencies|distances|positions|examples)\.png|health\.json)"
RUN_FILES = (
    rf"config\.yaml|images\.json|metrics\.jsonl|\.owner\.txt|samples/step-\d{{6,}}\.png|{HEALTH_FILES}|model/({MODEL_FILES})"
    rf"|checkpoints/(step-\d{{6,}}/({CHECKPOINT_FILES})|\.step-\d{{6,}}\.(partial|old)/.*)|\.model\.(partial|old)/.*"
)
"""Regular expressions of the files that commands write into a run folder, also of those that were cut off."""

COMMANDS: dict[Kind, str] = {
    "tokenizer": "vqtok train",
    "prior": "vqtok train-prior codes --out runs/prior",
    "baseline": "vqtok train --model vae",
}


def newest_model(kind: Kind, root: str | Path = "runs") -> Path:
    """The `model/` folder of the run below `root` that finished last.

    Raises:
        CheckpointError: there is none; says how to make one.
    """
    found = [config.parent for config in Path(root).glob("*/model/config.json") if holds(config.parent, kind)]
    if not found:
        raise CheckpointError(f"no finished {kind} below {root}/: train one with `{COMMANDS[kind]}`, or name one")
    return max(found, key=lambda folder: (folder / "config.json").stat().st_mtime_ns)


def holds(model: Path, kind: Kind) -> bool:
    """Whether the config.json of a folder is of this kind; one that cannot be read must not hide the other runs."""
    try:
        return kind_of(read_settings(model), name=str(model)) == kind
    except CheckpointError:
        return False


def check_run(run: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a run folder that `prepare_run` would refuse, before any work; it changes nothing.

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
    if used and overwrite:
        if not has_begun(run):
            raise ConfigurationError(
                f"{run} is not empty and holds no run, so it will not be overwritten: choose another folder with --out"
            )
        check_ours(run, RUN_FILES, [folder for folder in own_folders(run) if not folder.is_symlink()])
    if used and not resume and not overwrite:
        hint = "go on with --resume, replace it with --overwrite, or " if is_run(run) else ""
        raise ConfigurationError(f"{run} is not empty: {hint}choose another folder with --out")
    check_writable(run)


@contextmanager
def prepare_run(run: Path, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Make the run folder and have it for this process alone; only a run is resumed or, if asked for, replaced.

    Raises:
        ConfigurationError: as in `check_run`, or another process is at work in the folder.
    """
    check_run(run, resume=resume, overwrite=overwrite)
    with locked(run):
        if overwrite:
            remove_run(run)
        yield


def has_begun(run: Path) -> bool:
    """Whether a run wrote a folder; its configuration alone, without metrics or an owner, may be a copy."""
    try:
        known = (run / "metrics.jsonl").is_file() and read_metric_rows(run) is not None
    except CheckpointError:
        known = False
    return is_run(run) and (known or (run / OWNER_FILE).is_file())


def own_folders(run: Path) -> list[Path]:
    """The sub-folders that are a run's own; `health/` only where plots of ours are in it."""
    names = ("model", "checkpoints", "samples", *(["health"] if is_health(run / "health") else []))
    return [run / name for name in names if os.path.lexists(run / name)]


def remove_run(run: Path) -> None:
    """Remove what a run wrote, its configuration last; other files in the folder stay."""
    for folder in own_folders(run):
        if folder.name == "health" and is_folder(folder):
            clear_folder(folder, marker=HEALTH)  # last what shows that it is ours
        remove(folder)
    for name in ("metrics.jsonl", IMAGES_RECORD, "config.yaml"):
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
