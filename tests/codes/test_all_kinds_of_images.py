"""Photographs and drawings in every format, among files that are none: the good ones are coded, the bad ones listed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.made_images import make_images
from vqtok.codes import load_codes, read_bad_images, tokenize_images
from vqtok.tokenizer import VQTokenizer


@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_every_good_image_is_coded_and_every_bad_one_listed(
    tmp_path: Path, tiny_tokenizer: VQTokenizer, count: int
) -> None:
    made = make_images(tmp_path / "images", count)
    out = tmp_path / "codes"
    done = tokenize_images(tmp_path / "images", tiny_tokenizer, out, shard_rows=64, max_bad_share=0.5, progress=False)
    codes = load_codes(out, tokenizer=tiny_tokenizer)
    assert sorted(codes["file_name"]) == sorted(made.good)
    bad = read_bad_images(out).to_pylist()
    assert sorted(image["path"] for image in bad) == sorted(made.bad)
    assert all(image["reason"] and "\n" not in image["reason"] for image in bad)
    assert done.images == {"train": len(made.good)} and len(done.bad) == len(made.bad)
    for row in (0, len(codes) // 2, len(codes) - 1):
        grid = tiny_tokenizer.tokenize(tmp_path / "images" / codes[row]["file_name"])[0]
        assert codes[row]["codes"] == grid.tolist()
