from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from vqtok.errors import CheckpointError, ConfigurationError, DataError, MismatchError
from vqtok.priors import PriorBinding

BINDING = PriorBinding(fingerprint="a" * 64, grid=(2, 3), codebook_size=4, label_names=("cat", "dog", "owl"))


def test_survives_json() -> None:
    found = json.loads(json.dumps(BINDING.to_dict()))
    assert PriorBinding.from_config(SimpleNamespace(vqtok=found)) == BINDING


@pytest.mark.parametrize("found", [None, {}, BINDING.to_dict() | {"codebok_size": 4}])
def test_refuses_a_configuration_that_is_not_a_prior(found: object) -> None:
    with pytest.raises(CheckpointError):
        PriorBinding.from_config(SimpleNamespace(vqtok=found, model_type="llama"))


def test_labels_are_dealt_in_turn() -> None:
    assert BINDING.classes([2, 0], 5).tolist() == [2, 0, 2, 0, 2]
    assert BINDING.classes(1, 3).tolist() == [1, 1, 1]
    assert BINDING.classes(torch.tensor([0, 1, 2]), 2).tolist() == [0, 1]
    assert BINDING.classes(None, 2).tolist() == [3, 3]


def test_labels_go_by_name_or_number_or_both() -> None:
    assert BINDING.classes("dog", 2).tolist() == [1, 1]
    assert BINDING.classes(["owl", 0, "1"], 4).tolist() == [2, 0, 1, 2]
    assert BINDING.classes(("cat",), 1).tolist() == [0]
    assert BINDING.classes(np.array([2, 1], dtype=np.uint8), 2).tolist() == [2, 1]
    with pytest.raises(ConfigurationError, match="^no class 'cow': choose one of cat, dog, owl$"):
        BINDING.classes(["cat", "cow"], 2)

    assert BINDING.classes(np.array(["owl", "dog"]), 2).tolist() == [2, 1]
    assert BINDING.classes([np.int64(2), "1"], 2).tolist() == [2, 1]


WRONG = [[0, 3], -1, [], "3", ["dog", 3], [1.7], 1.0, torch.tensor([0.5]), np.array(["three"]), [True], [None]]


@pytest.mark.parametrize("labels", WRONG)
def test_labels_that_no_class_has_are_refused(labels: object) -> None:
    with pytest.raises(ConfigurationError, match="cat, dog, owl|is empty"):
        BINDING.classes(labels, 2)  # type: ignore[arg-type]


def test_a_prior_without_classes_takes_no_labels() -> None:
    unconditional = PriorBinding(fingerprint="a", grid=(1, 1), codebook_size=2)
    assert unconditional.classes(None, 2).tolist() == [0, 0]
    with pytest.raises(ConfigurationError, match="without classes"):
        unconditional.classes([0], 2)
    with pytest.raises(ConfigurationError, match="without classes"):
        unconditional.label_number("0")


def test_a_class_is_found_by_name_or_number() -> None:
    assert [BINDING.label_number(label) for label in ("dog", "2")] == [1, 2]
    with pytest.raises(ConfigurationError, match="choose one of cat, dog, owl"):
        BINDING.label_number("3")


@pytest.mark.parametrize("labels", [1.5, [0.0, 1.0], True, torch.tensor([1.0])])
def test_labels_that_are_no_whole_numbers_are_refused(labels: Any) -> None:
    with pytest.raises(ConfigurationError, match="name or a whole number from 0 to 2, got (1.5|0.0|True|1.0);"):
        BINDING.classes(labels, 2)


def test_a_name_wins_over_a_number() -> None:
    digits = PriorBinding(fingerprint="a", grid=(1, 1), codebook_size=2, label_names=("1", "0"))
    assert digits.label_number("0") == 1


def test_codes_are_read_row_by_row_and_codebook_by_codebook() -> None:
    assert BINDING.flatten(torch.arange(4).repeat(3).view(2, 2, 3)).tolist() == [[0, 1, 2, 3, 0, 1], [2, 3, 0, 1, 2, 3]]
    two = PriorBinding(fingerprint="a", grid=(1, 2), codebook_size=9, num_codebooks=2)
    assert two.flatten(torch.tensor([[[[1, 2], [3, 4]]]])).tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("codes", [torch.zeros(1, 3, 2), torch.zeros(2, 3), torch.full((1, 2, 3), 4)])
def test_codes_of_another_tokenizer_are_refused(codes: torch.Tensor) -> None:
    with pytest.raises(DataError):
        BINDING.flatten(codes.long())


def test_another_tokenizer_is_refused_with_both_fingerprints() -> None:
    BINDING.check_tokenizer("a" * 64)
    with pytest.raises(MismatchError, match="aaaaaaaaaaaa.*bbbbbbbbbbbb"):
        BINDING.check_tokenizer("b" * 64)
