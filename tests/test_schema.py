"""What was read from JSON is taken as it is or refused in one line that names the entry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import PositiveInt

from vqtok.errors import CheckpointError, DataError
from vqtok.schema import checked, read_object


@dataclass(frozen=True, kw_only=True)
class Grid:
    size: tuple[PositiveInt, PositiveInt]
    name: str | None = None


def test_lists_become_tuples_and_what_is_unknown_is_ignored() -> None:
    assert checked(Grid, {"size": [2, 3], "other": 1}, name="it") == Grid(size=(2, 3))


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({}, "it is damaged: size is missing"),
        ({"size": [2, -1]}, "it is damaged: size.1: input should be greater than 0, got -1"),
        ({"size": [2, "3"]}, "it is damaged: size.1: input should be a valid integer, got '3'"),
        ({"size": [2, float("nan")]}, "it is damaged: size.1: input should be a valid integer, got nan"),
        ({"size": [2, 3], "name": []}, "it is damaged: name: input should be a valid string, got []"),
        ({"size": "ab" * 60}, f"it is damaged: size: input should be a valid array, got {('ab' * 60)!r:.97}..."),
    ],
)
def test_the_first_wrong_entry_is_named(values: dict[str, object], line: str) -> None:
    for error in (CheckpointError, DataError):
        with pytest.raises(error) as caught:
            checked(Grid, values, name="it", error=error)
        assert str(caught.value) == line


def test_integers_are_those_that_a_tensor_holds(tmp_path: Path) -> None:
    file = tmp_path / "values.json"
    for value in (2**63 - 1, -(2**63), 10**18):
        file.write_text(f'{{"a": {value}}}')
        assert read_object(file) == {"a": value}
    for value, complaint in ((2**63, "more than 64 bits"), (-(2**63) - 1, "more than 64"), (10**19, "20 digits")):
        file.write_text(f'{{"a": {value}}}')
        with pytest.raises(CheckpointError, match=complaint):
            read_object(file)
