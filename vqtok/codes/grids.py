"""A codes folder as what a prior is trained on: grids and classes, some of them held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict

from vqtok.codes.dataset import CodesDataset
from vqtok.codes.reader import load_codes, read_spec
from vqtok.codes.spec import HELD_OUT_COLUMN, IMAGE_ID
from vqtok.data.columns import Labels, find_labels
from vqtok.data.held_out import HELD_OUT, find_held_out, held_out_rows, training_split
from vqtok.data.layout import split_group
from vqtok.errors import DataError
from vqtok.priors import PriorBinding
from vqtok.text import counted

__all__ = ["open_grids"]


def open_grids(
    path: str | Path,
    *,
    label_column: str | None = None,
    unconditional: bool = False,
    test_share: float = 0.1,
    seed: int = 0,
) -> tuple[PriorBinding, CodesDataset, CodesDataset, list[str]]:
    """What a codes folder holds: tokenizer and classes, training images, held-out images, and what to tell the user.

    The held-out images are the split `test`, else `validation`, else those that the tokenizer held out in its training,
    where a column `held_out` says which, else a seeded share of the training split. Rows that share an `image_id`, as
    views of one image do, are held out together; one without is an image of its own.

    Args:
        path: what `load_codes` takes: a codes folder, parquet files, a Hub id.
        label_column: where the classes are; found as `vqtok.data.columns` says where not given.
        unconditional: look for no classes.
        test_share: part of the images of the training split that is held out where nothing else says which.
        seed: decides which images those are.

    Raises:
        DataError: no codes there, no training split, a label column that is not there, or labels that are none.
        MismatchError: the codes are those of several tokenizers.
    """
    dataset = load_codes(path)
    spec = read_spec(dataset, name=str(path))
    splits = dict(dataset) if isinstance(dataset, DatasetDict) else {_name_of(dataset): dataset}
    training = training_split(splits)
    if training is None:
        raise DataError(f"{path} has no split 'train', only {', '.join(splits)}: tokenize training images too")
    labels, notes = (None, []) if unconditional else _open_labels(splits, training, str(path), label_column)
    held, held_notes = find_held_out(splits, training, labels)
    why = "there is no test split"
    if held and labels and not labels.are_in(splits[held]):
        held, held_notes, why = None, (), f"the split {held} has no labels, so it is not used"
    notes += held_notes

    def grids(name: str) -> CodesDataset:
        return CodesDataset(splits[name], labels.of(splits[name], f"{path}, split {name}") if labels else None)

    binding = PriorBinding(
        fingerprint=spec.fingerprint,
        grid=spec.grid,
        codebook_size=spec.codebook_size,
        num_codebooks=spec.num_codebooks,
        label_names=labels.names if labels else None,
        tokenizer=spec.repository,
        revision=spec.revision,
    )
    train = grids(training)
    if held:
        return binding, train, grids(held), notes
    train_rows, test_rows, note = _hold_out(splits[training], str(path), test_share, seed, why)
    return binding, train.select(train_rows), train.select(test_rows), [*notes, note]


def _hold_out(
    train: Dataset, name: str, share: float, seed: int, why: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], str]:
    """The rows to train on and those to test on, ascending, and what to tell the user."""
    told = _column(train, HELD_OUT_COLUMN, pa.types.is_boolean)[0]
    if told is not None and told.any() and not told.all():
        held = np.flatnonzero(told)
        note = (
            f"{why}: {len(held):,} of the {counted(len(told), 'row')} of train are held out to test on, those that the "
            f"tokenizer held out in its own training (the column {HELD_OUT_COLUMN}); test_share is not used"
        )
        return np.flatnonzero(~told), held, note
    images, is_missing = _column(train, IMAGE_ID, pa.types.is_integer)
    if images is None:
        return held_out_rows(len(train), share=share, seed=seed, name=name, why=why)
    images = np.where(is_missing, -1 - np.arange(len(train)), images)  # an image of its own, whose number none has
    distinct, image_of_row = np.unique(images, return_inverse=True)
    _, held, note = held_out_rows(len(distinct), share=share, seed=seed, name=name, why=why)
    is_held = np.isin(image_of_row, held)
    return np.flatnonzero(~is_held), np.flatnonzero(is_held), note


def _column(
    dataset: Dataset, name: str, fits: Callable[[pa.DataType], bool]
) -> tuple[npt.NDArray[Any] | None, npt.NDArray[np.bool_]]:
    """The values of a column, 0 or False where one is missing, and where that is; None where it is not of that type.

    Codes that were concatenated need not all have it.
    """
    if name not in dataset.column_names:
        return None, np.zeros(0, dtype=np.bool_)
    values = dataset.select_columns([name]).with_format("arrow")[:].column(name)
    is_missing = values.is_null().to_numpy()
    if not fits(values.type):
        return None, is_missing
    return pc.fill_null(values, pa.scalar(0).cast(values.type)).to_numpy(), is_missing


def _name_of(dataset: Dataset) -> str:
    """What the only split is taken for: training images, unless it is held out by its name."""
    return str(dataset.split) if split_group(str(dataset.split)) in HELD_OUT else "train"


def _open_labels(
    splits: Mapping[str, Dataset], training: str, name: str, label_column: str | None
) -> tuple[Labels | None, list[str]]:
    """The classes of the codes by the rule of `vqtok.data.columns`, None where they have none; and notes for the user.

    Raises:
        DataError: several columns could be it, or the one that is named holds no labels for all training images.
    """
    labels, notes = find_labels(splits, name, label_column, must_choose=True)
    if labels and labels.are_in(splits[training]):
        return labels, list(notes)
    if label_column:
        raise DataError(
            f"the column {label_column} of {name} has training images without a label: choose another, or train "
            "without classes by unconditional"
        )
    return None, [*notes, "the codes have no labels, so the prior has no classes"]
