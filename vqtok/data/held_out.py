"""What a dataset is tested on: the split it has for that, else a seeded share of its training split."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt
from datasets import Dataset

from vqtok.data.columns import Labels
from vqtok.data.layout import matching_split, split_group
from vqtok.errors import DataError
from vqtok.text import counted

__all__ = ["HELD_OUT", "find_held_out", "held_out_rows", "training_split"]

HELD_OUT = ("test", "validation")  # the first that a dataset has is what it is tested on


def training_split(splits: Collection[str]) -> str | None:
    """The split to train on, by name: the only one where it is none to test on, else that of training images."""
    if len(splits) == 1 and not any(split_group(split) in HELD_OUT for split in splits):
        return next(iter(splits))
    return matching_split(splits, "train")


def find_held_out(
    splits: Mapping[str, Dataset], train: str, labels: Labels | None
) -> tuple[str | None, tuple[str, ...]]:
    """The split to test on, by name, and what to tell the user: test, else validation, else None.

    Where the training images have labels, a test split without is passed over for a validation split that has them.
    """
    found = [split for group in HELD_OUT for split in splits if split_group(split) == group and split != train]
    if not found:
        return None, ()
    labelled = [split for split in found if labels and labels.are_in(splits[split])]
    wants_labels = labels is not None and labels.are_in(splits[train])
    split = labelled[0] if labelled and wants_labels else found[0]
    if split_group(split) == "test":
        return split, ()
    why = "there is no test split" if split == found[0] else f"the split {found[0]} has no labels"
    return split, (f"{why}: {split} ({counted(len(splits[split]), 'image')}) is used to test on",)


def held_out_rows(
    total: int, *, share: float, seed: int, name: str, split: str = "train", why: str = "there is no test split"
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], str]:
    """The rows to train on and those to test on, ascending and at least one of each, and what to tell the user.

    Args:
        total: rows of the training split.
        share: part of them that is held out.
        seed: decides which.
        name: what an error calls the dataset.
        split: what the dataset calls its training split.
        why: what the note begins with.

    Raises:
        DataError: fewer than two rows.
    """
    if total < 2:
        raise DataError(f"{name} has {counted(total, 'image')} and no test split; at least 2 images are needed")
    held = min(max(1, round(total * share)), total - 1)
    order = np.random.default_rng(seed).permutation(total)
    note = (
        f"{why}: {held:,} of the {total:,} images of {split} are held out to test on "
        f"(test_share {share:g}, seed {seed})"
    )
    return np.sort(order[held:]), np.sort(order[:held]), note
