"""Checkpoints that are whole or not there, and that a run goes on from exactly.

A checkpoint is written beside its place and renamed when it is complete, so that a run that is cut off never leaves one
that looks good and is not. It holds what the next step depends on: weights, codebook buffers, optimizer, the random
numbers of every process, and the step, which decides the learning rate and the place in the data.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

from accelerate import Accelerator
from safetensors import SafetensorError

from vqtok.errors import CheckpointError

__all__ = ["load_checkpoint", "newest_checkpoint", "replace_folder", "save_checkpoint"]

STATE = "state.json"


def replace_folder(partial: Path, final: Path) -> None:
    """Put a finished folder in its place; an older one there goes only once the new one is complete."""
    if final.exists():
        old = final.with_name(f".{final.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(final, old)
        os.replace(partial, final)
        shutil.rmtree(old)
    else:
        os.replace(partial, final)


def save_checkpoint(accelerator: Accelerator, run: Path, step: int, *, keep: int) -> Path:
    """Write `checkpoints/step-000500` of a run from all its processes and drop the oldest beyond `keep`.

    Raises:
        CheckpointError: it could not be written; what was there before is untouched.
    """
    folder = run / "checkpoints"
    final = folder / f"step-{step:06d}"
    partial = folder / f".step-{step:06d}.partial"
    try:
        if accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(partial))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            state = {"step": step, "num_processes": accelerator.num_processes}
            (partial / STATE).write_text(json.dumps(state), encoding="utf-8")
            replace_folder(partial, final)
    # torch.save reports a full disk as RuntimeError, safetensors as its own error
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        newest = newest_checkpoint(run)
        kept = f"the newest good checkpoint is {newest}" if newest else "there is no earlier checkpoint"
        reason = " ".join(str(error).split())
        raise CheckpointError(f"cannot write the checkpoint {final}: {reason}; {kept}") from error
    if accelerator.is_main_process:
        for old in whole_checkpoints(run)[:-keep]:
            shutil.rmtree(old)
    return final


def whole_checkpoints(run: Path) -> list[Path]:
    """Finished checkpoints of a run, oldest first."""
    folders = (run / "checkpoints").glob("step-*") if (run / "checkpoints").is_dir() else ()
    found = [folder for folder in folders if re.fullmatch(r"step-\d+", folder.name) and (folder / STATE).is_file()]
    return sorted(found, key=lambda folder: int(folder.name.removeprefix("step-")))


def newest_checkpoint(run: Path) -> Path | None:
    """The last finished checkpoint of a run, or None."""
    found = whole_checkpoints(run)
    return found[-1] if found else None


def load_checkpoint(accelerator: Accelerator, checkpoint: Path) -> int:
    """Restore everything that `save_checkpoint` wrote; returns the step to go on from.

    Raises:
        CheckpointError: the checkpoint was written by another number of processes or cannot be read.
    """
    state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    if state["num_processes"] != accelerator.num_processes:
        raise CheckpointError(
            f"{checkpoint} was written by {state['num_processes']} processes and cannot go on in "
            f"{accelerator.num_processes}: start as many as then"
        )
    try:
        accelerator.load_state(str(checkpoint))
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the checkpoint {checkpoint}: {' '.join(str(error).split())}") from error
    step: int = state["step"]
    return step
