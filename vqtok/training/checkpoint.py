"""Checkpoints that are whole or not there, and that a run goes on from exactly.

A checkpoint is written beside its place and renamed when it is complete, so that a run that is cut off never leaves one
that looks good and is not. It holds what the next step depends on: weights, codebook buffers, optimizer, the random
numbers of every process, and the step, which decides the learning rate and the position in the data.
"""

from __future__ import annotations

import json
import pickle
import re
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import load
from safetensors import SafetensorError

from vqtok.errors import CheckpointError, ConfigurationError, one_line
from vqtok.folders import files_of_others, remove, replace_folder, staging_path
from vqtok.hub import quiet_transformers
from vqtok.hub.push import Saveable
from vqtok.schema import checked, read_object
from vqtok.staging import entries_of

__all__ = [
    "CHECKPOINT_FILES",
    "MODEL_FILES",
    "checkpoint_to_resume",
    "load_checkpoint",
    "newest_checkpoint",
    "save_checkpoint",
    "save_model",
    "step_of",
]

STATE = "state.json"

CHECKPOINT_FILES = (
    r"(model|optimizer)(_\d+)?\.(safetensors|bin)|(random_states|custom_checkpoint)_\d+\.pkl|scaler\.pt|state\.json"
)
MODEL_FILES = (
    r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
    r"|((generation_|preprocessor_)?config|metrics(-[\w.-]+)?)\.json"
)
"""Regular expressions of the files of a checkpoint and of `model/`; the metrics are those of an evaluation."""

# A full disk: torch.save reports it as RuntimeError, safetensors as its own error.
WRITE_ERRORS = (OSError, RuntimeError, SafetensorError)
# A file that is cut off or is no checkpoint at all.
READ_ERRORS = (*WRITE_ERRORS, CheckpointError, ValueError, KeyError, EOFError, pickle.UnpicklingError)


@dataclass(frozen=True, kw_only=True)
class State:
    """What `state.json` says of a checkpoint.

    Attributes:
        step: steps done when it was written.
        num_processes: how many wrote it.
    """

    step: int
    num_processes: int


def save_checkpoint(accelerator: Accelerator, run: Path, step: int, *, keep: int) -> Path:
    """Write `checkpoints/step-000500` of a run from all its processes and drop the oldest beyond `keep`.

    Those in which somebody put other files stay.

    Raises:
        CheckpointError: it could not be written; what was there before is untouched.
    """
    final = run / "checkpoints" / f"step-{step:06d}"
    main = accelerator.is_main_process
    try:
        with replace_folder(final, ours=CHECKPOINT_FILES) if main else nullcontext(staging_path(final)) as partial:
            accelerator.wait_for_everyone()
            accelerator.save_state(str(partial))
            accelerator.wait_for_everyone()
            if main:
                state = State(step=step, num_processes=accelerator.num_processes)
                (partial / STATE).write_text(json.dumps(asdict(state)), encoding="utf-8")
    except WRITE_ERRORS as error:
        newest = newest_checkpoint(run)
        kept = f"the newest good checkpoint is {newest}" if newest else "there is no earlier checkpoint"
        raise CheckpointError(f"cannot write the checkpoint {final}: {one_line(error)}; {kept}") from error
    if main:
        unwanted = [folder for folder in whole_checkpoints(run)[:-keep] if folder.is_symlink() or is_ours_alone(folder)]
        for old in [*unwanted, *final.parent.glob(".step-*.partial")]:  # of runs that were killed
            remove(old)
    return final


def is_ours_alone(checkpoint: Path) -> bool:
    """Whether nobody put other files in a checkpoint."""
    return not files_of_others(checkpoint, CHECKPOINT_FILES, entries_of(checkpoint))


def save_model(model: Saveable, run: Path) -> None:
    """Write `model/` of a run; numbers of an older one go with it, and files that somebody put there stay.

    Raises:
        CheckpointError: it could not be written; what was there before is untouched.
    """
    try:
        with replace_folder(run / "model", ours=MODEL_FILES) as partial, quiet_transformers():
            model.save_pretrained(partial)
    except WRITE_ERRORS as error:
        raise CheckpointError(
            f"cannot write the model {run / 'model'}: {one_line(error)}; its checkpoint is whole: "
            "free some space and go on with --resume"
        ) from error


def whole_checkpoints(run: Path) -> list[Path]:
    """Finished checkpoints of a run, oldest first."""
    folders = (run / "checkpoints").glob("step-*") if (run / "checkpoints").is_dir() else ()
    found = [folder for folder in folders if re.fullmatch(r"step-\d+", folder.name) and (folder / STATE).is_file()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """Steps done when a checkpoint was written."""
    return int(checkpoint.name.removeprefix("step-"))


def newest_checkpoint(run: Path) -> Path | None:
    """The last finished checkpoint of a run, or None."""
    found = whole_checkpoints(run)
    return found[-1] if found else None


def checkpoint_to_resume(run: Path, steps: int) -> Path | None:
    """The checkpoint that a run of so many steps goes on from, or None where it has none yet.

    Raises:
        ConfigurationError: the run has more steps behind it.
    """
    newest = newest_checkpoint(run)
    if newest and step_of(newest) > steps:
        raise ConfigurationError(
            f"the run in {run} is at step {step_of(newest)} already: steps must be at least that, got {steps}"
        )
    return newest


def load_checkpoint(accelerator: Accelerator, checkpoint: Path) -> int:
    """Restore everything that `save_checkpoint` wrote; returns the step to go on from.

    Raises:
        CheckpointError: the checkpoint was written by another number of processes or cannot be read.
    """
    try:
        state = checked(State, read_object(checkpoint / STATE), name=STATE)
        if state.num_processes == accelerator.num_processes:
            # load_state goes on without random numbers that it cannot read, and the run would not be the same
            load(checkpoint / f"random_states_{accelerator.process_index}.pkl")
            accelerator.load_state(str(checkpoint))
    except READ_ERRORS as error:
        raise CheckpointError(
            f"cannot read the checkpoint {checkpoint}: {one_line(error)}; delete it to go on from an earlier one"
        ) from error
    if state.num_processes != accelerator.num_processes:
        raise CheckpointError(
            f"{checkpoint} was written by {state.num_processes} processes and cannot go on in "
            f"{accelerator.num_processes}: start as many as then"
        )
    return state.step
