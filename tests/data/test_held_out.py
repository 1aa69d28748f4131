from __future__ import annotations

import pytest

from vqtok.data.held_out import held_out_rows
from vqtok.errors import DataError


def test_held_out_rows_are_the_seeds_and_none_is_in_both_parts() -> None:
    train, test, note = held_out_rows(50, share=0.1, seed=3, name="digits")
    assert (len(train), len(test)) == (45, 5)
    assert sorted([*train, *test]) == list(range(50))
    assert note.endswith(": 5 of the 50 images of train are held out to test on (test_share 0.1, seed 3)")
    again, other = (held_out_rows(50, share=0.1, seed=seed, name="digits")[1] for seed in (3, 4))
    assert again.tolist() == sorted(test) != other.tolist()


def test_each_part_has_at_least_one_row() -> None:
    assert [len(held_out_rows(2, share=share, seed=0, name="two")[1]) for share in (0.01, 0.99)] == [1, 1]
    with pytest.raises(DataError, match="^digits has 1 image and no test split; at least 2 images are needed$"):
        held_out_rows(1, share=0.1, seed=0, name="digits")
