from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import DatasetDict, Value

from tests.codes.labelled import LABEL, make_codes
from vqtok.codes import CodesDataset, codes_array, open_grids
from vqtok.data.held_out import held_out_rows
from vqtok.errors import DataError
from vqtok.training import PriorTrainingConfig, train_prior


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "codes"


def test_the_grids_and_classes_are_the_folders(folder: Path) -> None:
    DatasetDict({"train": make_codes(5), "validation": make_codes(3)}).save_to_disk(folder)
    binding, train, test, notes = open_grids(folder)
    assert train.__getitems__(range(5))["codes"][:, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert train.labels is not None
    assert train.labels.tolist() == [0, 1, 0, 1, 0]
    assert (len(test), binding.label_names) == (3, ("cat", "dog"))
    assert notes == ["there is no test split: validation (3 images) is used to test on"]


@pytest.mark.parametrize(("training", "other"), [("training", "extra"), ("Train", "Test")])
def test_a_training_split_of_another_usual_name_is_found_as_in_training_a_tokenizer(
    folder: Path, training: str, other: str
) -> None:
    DatasetDict({other: make_codes(3), training: make_codes(20)}).save_to_disk(folder)
    binding, train, test, _ = open_grids(folder)
    assert (len(train), len(test)) == ((20, 3) if other == "Test" else (18, 2))
    assert binding.label_names == ("cat", "dog")


def test_rows_of_which_less_is_known_leave_the_others_together(folder: Path) -> None:
    """As where codes with views and codes without, or with and without `held_out`, are concatenated."""
    known: list[Any] = [number // 4 for number in range(40)]
    for name, values in (("image_id", known), ("held_out", [number < 3 for number in known])):
        codes = make_codes(60, {}).add_column(name, [*values, *[None] * 20]).add_column("label", list(range(60)))
        codes.info.description = make_codes(1).info.description
        codes.save_to_disk(folder, num_shards=1)
        _, train, test, notes = open_grids(folder, test_share=0.2)
        sides = [set(np.asarray(grids.labels).tolist()) for grids in (train, test)]
        assert sum(map(len, sides)) == 60
        if name == "held_out":
            assert sides[1] == set(range(12)) and "those that the tokenizer held out" in notes[-1]
        else:
            assert not {row // 4 for row in sides[0] if row < 40} & {row // 4 for row in sides[1] if row < 40}
            assert "6 of the 30 images" in notes[-1]
        shutil.rmtree(folder)


def test_integer_labels_are_as_many_classes_as_they_have_values(folder: Path) -> None:
    codes = make_codes(40, {}).add_column("label", [3, 7, 3_000_000, 5] * 10)
    codes.info.description = make_codes(1).info.description
    codes.save_to_disk(folder)
    binding, train, test, _ = open_grids(folder)
    assert binding.label_names == ("3", "5", "7", "3000000")
    for grids in (train, test):
        assert grids.labels is not None and len(grids) in (36, 4)
        codes = np.concatenate(list(grids.blocks()))[:, 0, 0]
        assert grids.labels.tolist() == [[0, 2, 3, 1][code % 4] for code in codes]


@pytest.mark.parametrize(
    ("columns", "changes", "names"),
    [
        ({}, {}, None),
        (LABEL, {"unconditional": True}, None),
        ({"label": Value("int64")}, {}, ("0", "1")),
        ({"kind": LABEL["label"], "row": Value("int64")}, {}, ("cat", "dog")),
        ({"kind": LABEL["label"], "sort": LABEL["label"]}, {"label_column": "sort"}, ("cat", "dog")),
        ({"label": LABEL["label"], "fine_label": LABEL["label"]}, {}, ("cat", "dog")),
    ],
)
def test_classes_come_from_the_column_of_labels(
    folder: Path, columns: dict[str, Any], changes: dict[str, Any], names: tuple[str, ...] | None
) -> None:
    make_codes(20, columns).save_to_disk(folder)
    binding, train, _, notes = open_grids(folder, **changes)
    assert binding.label_names == names
    assert (train.labels is None) == (names is None)
    assert any("no labels" in note for note in notes) == (not columns)


def test_a_label_column_that_is_none_is_refused(folder: Path) -> None:
    make_codes(20, {"kind": LABEL["label"], "sort": LABEL["label"]}).save_to_disk(folder)
    with pytest.raises(DataError, match="set label_column to one of kind, sort"):
        open_grids(folder)
    with pytest.raises(DataError, match="codes has no column knd; its columns are .* Did you mean 'kind'"):
        open_grids(folder, label_column="knd")


def test_a_folder_without_training_codes_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="codes"):
        open_grids(folder)
    DatasetDict({"test": make_codes(5)}).save_to_disk(folder)
    with pytest.raises(DataError, match="no split 'train', only test"):
        open_grids(folder)


def test_a_test_split_without_labels_is_said_once(folder: Path) -> None:
    DatasetDict({"train": make_codes(20), "test": make_codes(5, {})}).save_to_disk(folder)
    _, train, test, notes = open_grids(folder)
    assert (len(train), len(test)) == (18, 2)
    assert notes == [
        "the split test has no labels, so it is not used: 2 of the 20 images of train are held out to test on "
        "(test_share 0.1, seed 0)"
    ]


@pytest.mark.parametrize("held_out_split", [False, True])
def test_a_prior_learns_the_same_from_shards_as_from_arrays(tmp_path: Path, held_out_split: bool) -> None:
    """Seven files, with held-out rows or a split of them, against the same images as one array: bit for bit."""
    codes = make_codes(200).shuffle(seed=0)
    splits = DatasetDict({"train": codes} | ({"test": make_codes(30)} if held_out_split else {}))
    splits.save_to_disk(tmp_path / "codes", num_shards=dict.fromkeys(splits, 7))
    binding, *shards, _ = open_grids(tmp_path / "codes", seed=3)
    arrays = {name: codes_array(split) for name, split in splits.items()}
    labels = {name: np.array(split["label"][:]) for name, split in splits.items()}
    if held_out_split:
        whole = [CodesDataset.from_arrays(arrays[name], labels[name]) for name in ("train", "test")]
    else:
        rows = held_out_rows(200, share=0.1, seed=3, name="codes")[:2]
        whole = [CodesDataset.from_arrays(arrays["train"][each], labels["train"][each]) for each in rows]
    runs = []
    for name, (train, test) in {"shards": shards, "whole": whole}.items():
        config = PriorTrainingConfig(
            codes="codes",
            out=str(tmp_path / name),
            arch={"type": "pixelcnn", "hidden_size": 4, "num_layers": 1, "kernel_size": 3},
            steps=12,
            batch_size=16,
            log_every=1,
            eval_every=4,
        )
        train_prior(config, binding, train, test)
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        runs.append([(line["split"], line["step"], line["loss"], line["bits_per_code"]) for line in lines])
    assert len(runs[0]) == 12 + 3
    assert runs[0] == runs[1]
