"""What was measured and drawn of a model, as it lies on disk beside it. A card states only what is found here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from vqtok.assignments import read_yaml
from vqtok.data.record import SplitRecord
from vqtok.errors import CheckpointError, ConfigurationError
from vqtok.hub.folder import METRICS, check_links
from vqtok.schema import checked, integer, read_object

__all__ = [
    "HEALTH",
    "IMAGES_RECORD",
    "RunMetadata",
    "find_run_metadata",
    "is_health",
    "is_run",
    "newest_sample",
    "portable",
    "read_images_record",
    "read_metric_rows",
    "read_metrics",
    "run_of",
    "step_of",
    "training_usage",
]

HEALTH = "health.json"
IMAGES_RECORD = "images.json"
"""What a run keeps of its training images to know them again."""


@dataclass(frozen=True, kw_only=True)
class RunMetadata:
    """The files behind a card; each is None where there is none.

    Attributes:
        metrics: what an evaluation wrote: the dataset, the split, and numbers.
        held_out: the last line about held-out data that training wrote.
        training_usage: the share of codes in use over the last images of training.
        recipe: the run's resolved configuration, without what is true of one machine only.
        image: reconstructions of a tokenizer, samples of a prior.
        step: the step the image was drawn at, where training drew it.
    """

    metrics: Mapping[str, Any] | None = None
    held_out: Mapping[str, Any] | None = None
    training_usage: float | None = None
    recipe: Mapping[str, Any] | None = None
    image: Path | None = None
    step: int | None = None


def is_run(folder: Path) -> bool:
    """Whether a folder holds the configuration of a run, and not that of some other program."""
    try:
        return {"out", "steps", "checkpoint_every"} <= read_yaml(folder / "config.yaml").keys()
    except ConfigurationError:
        return False


def is_health(folder: Path) -> bool:
    """Whether a folder holds the health.json that `report.draw_health` writes, and not that of some other program."""
    try:
        return {"fingerprint", "split", "codebook_size"} <= read_object(folder / HEALTH).keys()
    except CheckpointError:
        return False


def run_of(folder: Path) -> Path | None:
    """The run folder that a folder is the `model/` of; None beside the configuration of some other program."""
    run = folder.resolve().parent
    return run if folder.resolve().name == "model" and is_run(run) else None


def read_images_record(run: Path) -> SplitRecord | None:
    """What a run keeps of its training images to know them again; None where it kept nothing.

    Raises:
        CheckpointError: the file is damaged.
    """
    file = run / IMAGES_RECORD
    if not file.is_file():
        return None
    try:
        return checked(SplitRecord, read_object(file), name=str(file))
    except CheckpointError as error:
        raise CheckpointError(f"{error}: delete it, and nothing is known of the images of this run") from None


def find_run_metadata(folder: Path, image: str) -> RunMetadata:
    """Gather what lies beside a model.

    Args:
        folder: the model's.
        image: name of the image in the folder, which is taken before one of the run.

    Raises:
        CheckpointError: a file that cannot be read, or that is a link to one elsewhere.
    """
    run = run_of(folder)
    check_links(folder, [folder / METRICS, folder / image])
    metrics = read_metrics(folder / METRICS) if (folder / METRICS).is_file() else None
    drawn, step = newest_sample(run) if run else (None, None)
    rows = []
    if run:
        check_links(run, [run / "config.yaml", run / "metrics.jsonl", *([drawn] if drawn else [])])
        rows = read_metric_rows(run)
    if (folder / image).is_file():
        drawn, step = folder / image, None
    return RunMetadata(
        metrics=metrics,
        held_out=last_held_out(rows),
        training_usage=training_usage(rows),
        recipe=read_recipe(run) if run else None,
        image=drawn,
        step=step,
    )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What metrics.json says beside its numbers, each of which is looked at where it is shown."""

    dataset: str
    split: str
    dataset_resolved: str | None = None
    dataset_revision: str | None = None
    num_images: int | None = None
    num_images_in_split: int | None = None
    notes: list[str] = field(default_factory=list)


def read_metrics(path: Path) -> dict[str, Any]:
    """The metrics that an evaluation wrote.

    Raises:
        CheckpointError: the file cannot be read, or says something else.
    """
    metrics = read_object(path)
    checked(Measured, metrics, name=str(path))
    return metrics


def newest_sample(run: Path) -> tuple[Path | None, int | None]:
    """The image that training wrote last, samples/step-000500.png, and its step."""
    steps = {step: path for path in (run / "samples").glob("step-*.png") if (step := step_of(path)) is not None}
    return (steps[max(steps)], max(steps)) if steps else (None, None)


def step_of(path: Path) -> int | None:
    """500 of step-000500 and step-000500.png; None of other names."""
    number = path.stem.removeprefix("step-")
    return int(number) if number.isdecimal() else None


def read_metric_rows(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, none where there is no such file; a last line that was cut off is left out.

    Raises:
        CheckpointError: a line that is no row.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line, parse_int=integer)
            if type(row["step"]) is not int or not isinstance(row["split"], str):
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(
                f"{path} is damaged: every line must be an object with step and split, which line {number} is not"
            ) from error
        rows.append(row)
    return rows


def last_held_out(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The last row of metrics.jsonl about the test split."""
    return next((row for row in reversed(rows) if row["split"] == "test"), None)


def training_usage(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The share of codes in use over the last images of training, where it is on record."""
    found = [row["usage"] for row in rows if row["split"] == "train" and isinstance(row.get("usage"), int | float)]
    return float(found[-1]) if found else None


def read_recipe(run: Path) -> Mapping[str, Any]:
    """config.yaml of a run, without the paths of this machine."""
    recipe: Mapping[str, Any] = without_paths(read_yaml(run / "config.yaml", error=CheckpointError))
    return recipe


def without_paths(value: Any) -> Any:
    """A value of YAML with `portable` text, in lists and sections as well."""
    if isinstance(value, Mapping):
        return {without_paths(name): without_paths(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    return portable(value) if isinstance(value, str) else value


def portable(name: str | None, parts: int = 1) -> str | None:
    """A Hub id or a relative path as it is; of one that tells about one machine or user only, the last parts."""
    if name is None:
        return None
    own = Path(name).is_absolute() or name.startswith("~") or PureWindowsPath(name).is_absolute()
    return str(Path(*re.split(r"[\\/]", name.rstrip("\\/"))[-parts:])) if own else name
