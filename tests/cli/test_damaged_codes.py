"""Grids that are not what their column says are one line, whichever command reads the codes folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vqtok.tokenizer import VQTokenizer

Command = Callable[..., tuple[int, str, str]]

ROW = [1, 2, 3, 4]
GRID = [ROW] * 4


DAMAGED = {
    "too few rows": [GRID[:3]] * 12,
    "rows of other lengths": [[ROW[:3], [*ROW, 5], ROW, ROW]] * 12,
    "grids of other lengths": [GRID[:3], [*GRID, ROW]] * 6,
    "a code that is missing": [[[1, None, 3, 4], *GRID[1:]]] * 12,
    "a row that is missing": [[None, *GRID[1:]]] * 12,
}


def replace_grids(folder: str, grids: list[Any]) -> None:
    """Put other grids into the file of a codes folder, whose schema stays."""
    (file,) = Path(folder).glob("train/*.arrow")
    with pa.ipc.open_stream(file) as reader:
        table = reader.read_all()
    storage = pa.array(grids, pa.list_(pa.list_(pa.uint16())))
    codes = pa.ExtensionArray.from_storage(table.schema.field("codes").type, storage)
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table.set_column(0, table.schema.field("codes"), codes))


@pytest.mark.parametrize("grids", DAMAGED.values(), ids=DAMAGED.keys())
def test_grids_that_are_not_those_of_their_column(
    vqtok: Command, images_folder: Path, tiny_tokenizer: VQTokenizer, grids: list[Any]
) -> None:
    tiny_tokenizer.save_pretrained("tok")
    assert vqtok("tokenize", "images", "--tokenizer", "tok", "--out", "codes")[0] == 0
    replace_grids("codes", grids)
    check_refused(vqtok)


@pytest.mark.parametrize("start", [-4, 2, 10**8])
def test_rows_that_lie_outside_the_codes(
    vqtok: Command, images_folder: Path, tiny_tokenizer: VQTokenizer, start: int
) -> None:
    tiny_tokenizer.save_pretrained("tok")
    assert vqtok("tokenize", "images", "--tokenizer", "tok", "--out", "codes")[0] == 0
    (file,) = Path("codes").glob("train/*.arrow")
    content = file.read_bytes()
    starts = np.arange(0, 4 * 49, 4, dtype=np.int32)
    assert content.count(starts.tobytes()) == 1
    file.write_bytes(content.replace(starts.tobytes(), (starts + start).tobytes()))
    check_refused(vqtok)


def test_file_names_that_are_not_utf_8_are_numbers(
    vqtok: Command, images_folder: Path, tiny_tokenizer: VQTokenizer
) -> None:
    tiny_tokenizer.save_pretrained("tok")
    assert vqtok("tokenize", "images", "--tokenizer", "tok", "--out", "codes")[0] == 0
    (file,) = Path("codes").glob("train/*.arrow")
    content = file.read_bytes()
    assert content.count(b"cat/02.png") == 1
    file.write_bytes(content.replace(b"cat/02.png", b"cat/\xff2.png"))
    code, _, complained = vqtok("detokenize", "codes", "--tokenizer", "tok")
    assert code == 0, complained
    found = {path.name for path in Path("reconstructions").rglob("*.png")}
    assert found == {"000001.png", *(f"{number:02d}.png" for number in range(12) if number != 2)}


def check_refused(vqtok: Command) -> None:
    for command in ("inspect codes", "detokenize codes --tokenizer tok", "train-prior codes --steps 1 --batch-size 4"):
        code, _, complained = vqtok(*command.split())
        assert code == 2
        assert complained == (
            "vqtok: error: some grids are not 4 x 4 codes, as their column says: tokenize the images again\n"
        )
    assert not Path("reconstructions").exists() and not Path("runs").exists()
