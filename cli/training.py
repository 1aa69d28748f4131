"""What the two training commands have in common: where settings come from, and how a run that was stopped goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer

from vqtok.hub import open_folder, push, sharing_warning
from vqtok.training import TrainingResult, check_run, resolve_config, resume_config
from vqtok.training.config import LoopConfig
from vqtok.training.resolution import Kind
from vqtok_cli.output import done, is_first, say

__all__ = ["check_out", "finished_model", "push_finished", "settings_for"]

Config = TypeVar("Config", bound=LoopConfig)


def settings_for(
    kind: Kind[Config],
    *,
    given: Mapping[str, Any],
    file: Path | None,
    assignments: Sequence[str] | None,
    out: str,
    resume: bool,
) -> Config:
    """The settings of a new run, by default into the folder `out`, or of the run that is resumed, by default in it.

    Raises:
        ConfigurationError: settings that make no sense, or a run to resume that is not named.
    """
    sources: dict[str, Any] = {"file": file, "options": given, "assignments": assignments or []}
    if not resume:
        return resolve_config(kind, base={"out": out}, **sources)
    return resume_config(kind, Path(out) if out else None, **sources)


def check_out(out: str, *, resume: bool, overwrite: bool) -> None:
    """Refuse a run folder before any work; of several processes the first one looks, as what it tries can be seen.

    Raises:
        ConfigurationError: as in `check_run`.
    """
    if is_first():
        check_run(Path(out), resume=resume, overwrite=overwrite)


def finished_model(command: str, result: TrainingResult, out: str) -> Path:
    """The folder of the finished model; where a signal stopped the run, says how to go on and ends the command."""
    if result.model is not None:
        return result.model
    assert result.stopped_by is not None  # nothing else ends a run early
    done(
        f"{result.stopped_by.name} at step {result.step}: saved in {out}/checkpoints",
        next=("vqtok", command, "--resume", "--out", out),
    )
    raise typer.Exit(128 + result.stopped_by)


def push_finished(model: Path, repo_id: str) -> None:
    """Push the model of a run; where its weights may not be given to others, says so first."""
    if warning := sharing_warning(open_folder(model).config):
        say(f"warning: {warning}", err=True)
    done(f"pushed to {push(model, repo_id)}")
