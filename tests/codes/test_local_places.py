"""Images and codes at places of this machine that are named in unusual ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command, vqtok
from tests.codes.test_failures import TOKENIZE, complaint, whole
from vqtok.codes import load_codes
from vqtok.tokenizer import VQTokenizer

__all__ = ["vqtok", "whole"]


@pytest.mark.parametrize("images", ["images", "rows", "rows/a.parquet", "rows/*.parquet"])
@pytest.mark.parametrize("scheme", ["file", "local"])
def test_an_address_of_this_machine_is_a_path(
    vqtok: Command, images_folder: Path, tiny_tokenizer: VQTokenizer, images: str, scheme: str
) -> None:
    tiny_tokenizer.save_pretrained("tok")
    make = ("--tokenizer", "tok", "--images", "--quiet", "--format", "parquet", "--out")
    assert vqtok("tokenize", "images", *make, "kept")[0] == 0
    Path("rows").mkdir()
    next(Path("kept/data").iterdir()).rename("rows/a.parquet")
    for _ in range(2):
        status, _, complained = vqtok(
            "tokenize", f"{scheme}://{Path.cwd()}/{images}", "--columns", "label", *make[:-3], "--out", "codes"
        )
        assert status == 0, complained
        Path("codes/train/data-00000-of-00001.arrow").unlink()


def test_codes_are_not_made_where_they_would_not_load(vqtok: Command, whole: dict[str, bytes]) -> None:
    assert "reads no folder with :: in its path" in complaint(vqtok(*TOKENIZE, "a::b/codes"))
    assert not Path("a::b").exists()
    assert vqtok(*TOKENIZE, "a:b/codes")[0] == 0 and len(load_codes("a:b/codes")) == 12
