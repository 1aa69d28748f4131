"""Which images the tokenizer was not trained on, as a column of its codes.

A dataset with a split to test on tells them apart by that split. Of one without, training holds out a share of the
training split, which share and seed decide; both are on record in the run folder that the tokenizer is the `model/` of,
as are the number and names of its images, and the codes of the same images say of each whether it was among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, NonNegativeInt

from vqtok.assignments import read_yaml
from vqtok.codes.spec import HELD_OUT_COLUMN
from vqtok.data.held_out import HELD_OUT, held_out_rows, training_split
from vqtok.data.layout import split_group
from vqtok.data.opening import OpenedRows
from vqtok.errors import CheckpointError
from vqtok.hub import read_images_record, run_of
from vqtok.names import meaning
from vqtok.schema import checked

__all__ = ["HeldOut", "find_held_out_images"]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The rows of one split that a tokenizer held out in its training.

    Args:
        split: the split, by its name in the dataset.
        total: rows of it, good and bad.
        share: part of them that was held out.
        seed: what decided which.
    """

    split: str
    total: int
    share: float
    seed: int

    def rows(self) -> npt.NDArray[np.bool_]:
        """Whether each of the rows of the split was held out: (total,)."""
        _, rows, _ = held_out_rows(self.total, share=self.share, seed=self.seed, name=self.split)
        among = np.zeros(self.total, dtype=np.bool_)
        among[rows] = True
        return among


class Run(BaseModel):
    """What config.yaml of a run says of the images that it held out."""

    dataset: str
    dataset_config: str | None = None
    test_share: Annotated[float, Field(gt=0, lt=1)]
    seed: NonNegativeInt


def find_held_out_images(
    tokenizer: str | Path | None,
    dataset: str,
    opened: OpenedRows,
    *,
    dataset_config: str | None = None,
) -> tuple[HeldOut | None, tuple[str, ...]]:
    """What the run of a tokenizer held out of these images, and what to tell the user.

    None where nothing is known, a split tells it already, or the images are others than those of the run by now.

    Args:
        tokenizer: where it was loaded from, as `tokenizer.repository`.
        dataset: the images, by the name that `open_rows` takes.
        opened: the same, opened.
        dataset_config: configuration of the dataset.

    Raises:
        CheckpointError: the run has a damaged configuration or record.
        DataError: the names of the images cannot be read.
        HubError: the Hub does not give them.
    """
    folder = run_of(Path(tokenizer)) if tokenizer is not None and Path(tokenizer).is_dir() else None
    then = read_images_record(folder) if folder else None
    split = training_split(opened.names)
    if folder is None or then is None or split is None or split not in opened.splits:
        return None, ()
    if any(split_group(other) in HELD_OUT for other in opened.names if other != split):
        return None, ()
    run = checked(Run, read_yaml(folder / "config.yaml", error=CheckpointError), name=str(folder / "config.yaml"))
    if (meaning(run.dataset)[0], run.dataset_config) != (meaning(dataset)[0], dataset_config):
        return None, ()
    now = opened.record(split)
    if change := then.change(now):
        return None, (f"there is no column {HELD_OUT_COLUMN}: {change} since the tokenizer was trained",)
    return HeldOut(split=split, total=now.rows, share=run.test_share, seed=run.seed), ()
