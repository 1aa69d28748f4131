"""Which images the tokenizer was not trained on, as a column of its codes.

A dataset with a split to test on tells them apart by that split. Of one without, training holds out a share of the
training split, which share and seed decide; both are on record in the run folder that the tokenizer is the `model/` of,
and the codes of the same dataset can say of each image whether it was among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from vqtok.assignments import read_yaml
from vqtok.data.held_out import HELD_OUT, held_out_rows, training_split
from vqtok.data.layout import split_group
from vqtok.errors import CheckpointError
from vqtok.hub import run_of
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
    revision: str | None = None
    dataset_config: str | None = None
    test_share: float
    seed: int


def find_held_out_images(
    tokenizer: str | Path | None,
    dataset: str,
    rows: Mapping[str, int],
    *,
    revision: str | None = None,
    dataset_config: str | None = None,
) -> HeldOut | None:
    """What the run of a tokenizer held out of these images; None where nothing is known or a split tells it already.

    Args:
        tokenizer: where it was loaded from, as `tokenizer.repository`.
        dataset: the images, by the name that `open_all` takes.
        rows: of each split of the whole dataset its number of rows; splits without rows are left out.
        revision: branch, tag or commit of a dataset on the Hub.
        dataset_config: configuration of the dataset.

    Raises:
        CheckpointError: the run has a damaged configuration.
    """
    run = _run_beside(tokenizer)
    split = training_split(rows)
    if run is None or split is None or any(split_group(other) in HELD_OUT for other in rows if other != split):
        return None
    if rows[split] < 2 or not _is_same(run, dataset, revision, dataset_config):
        return None
    return HeldOut(split=split, total=rows[split], share=run.test_share, seed=run.seed)


def _run_beside(tokenizer: str | Path | None) -> Run | None:
    """The run of a tokenizer folder, where it trained on images."""
    if tokenizer is None or not Path(tokenizer).is_dir() or (run := run_of(Path(tokenizer))) is None:
        return None
    values = read_yaml(run / "config.yaml", error=CheckpointError)
    return checked(Run, values, name=str(run / "config.yaml")) if "dataset" in values else None


def _is_same(run: Run, dataset: str, revision: str | None, dataset_config: str | None) -> bool:
    """Whether these are the images of the run, as far as their name and revision say."""
    (trained_on, trained_at), (named, named_at) = meaning(run.dataset), meaning(dataset)
    then, now = run.revision or trained_at, revision or named_at
    return (trained_on, then, run.dataset_config) == (named, now, dataset_config)
