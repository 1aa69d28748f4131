from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vqtok.data import fit_image, masked_image
from vqtok.data.masking import fill_unknown, keep_side
from vqtok.errors import ConfigurationError, DataError

GREY = {"num_channels": 1, "size": (8, 8)}


def noise(*shape: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize(
    ("text", "rows", "columns"),
    [
        ("top:0.5", range(0, 4), range(0, 6)),
        ("bottom:0.25", range(6, 8), range(0, 6)),
        ("left:0.5", range(0, 8), range(0, 3)),
        ("right:1", range(0, 8), range(0, 6)),
        ("top:0", range(0), range(0, 6)),
        ("bottom:0", range(0), range(0, 6)),
    ],
)
def test_a_share_of_a_side_is_kept(text: str, rows: range, columns: range) -> None:
    expected = np.zeros((8, 6), dtype=bool)
    expected[rows.start : rows.stop, columns.start : columns.stop] = True
    assert np.array_equal(keep_side(text, (8, 6)), expected)


@pytest.mark.parametrize(
    "text", ["top:1.2", "top:-0.1", "top:nan", "middle:0.5", "top", "top:", ":0.5", "0.5", "", "top:a"]
)
def test_other_sides_and_shares_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^keep must be top, bottom, left or right .* got '{text}'$"):
        keep_side(text, (8, 8))


def test_a_position_is_kept_if_all_of_its_patch_is() -> None:
    mask = np.ones((8, 8), dtype=bool)
    mask[3, 5] = False
    part = masked_image(noise(8, 8), mask, **GREY)  # type: ignore[arg-type]
    assert part.positions((2, 2)).tolist() == [[True, False], [True, True]]
    assert part.positions((8, 8)).sum() == 63
    assert masked_image(noise(8, 8), keep="top:0.6", **GREY).positions((2, 2)).tolist() == [[True] * 2, [False] * 2]  # type: ignore[arg-type]


def test_unknown_pixels_become_the_mean_of_the_smallest_square_around_them() -> None:
    """Written out pixel by pixel, in colour, for sides that are no powers of two."""
    image = noise(6, 7, 3)
    kept = np.random.default_rng(1).random((6, 7)) < 0.15
    kept[:4, :4] = False
    expected = np.asarray(image).astype(np.float64)
    for y, x in np.argwhere(~kept):
        side = 2
        while True:
            rows = slice(y // side * side, y // side * side + side)
            columns = slice(x // side * side, x // side * side + side)
            if kept[rows, columns].any():
                break
            side *= 2
        expected[y, x] = np.asarray(image)[rows, columns][kept[rows, columns]].mean(axis=0)
    filled = np.asarray(fill_unknown(image, kept)).astype(np.float64)
    assert np.array_equal(filled[kept], expected[kept])
    assert np.abs(filled - expected).max() <= 0.5001
    assert (np.asarray(fill_unknown(image, np.zeros((6, 7), dtype=bool))) == 128).all()


@pytest.mark.parametrize("resample", ["bicubic", "lanczos", "nearest", "center-crop-adm", "shorter-side-bilinear"])
def test_a_mask_of_the_image_goes_the_way_of_the_image(resample: str) -> None:
    """A larger image that is cropped at the sides: what is far from the unknown part is as if all were known."""
    image, mask, expected = noise(32, 48, 3), np.ones((32, 48), dtype=bool), np.ones((8, 8), dtype=bool)
    mask[16:, 24:] = False
    expected[4:, 4:] = False
    part = masked_image(image, mask, num_channels=3, size=(8, 8), resample=resample)
    assert np.array_equal(part.kept, expected)
    assert np.array_equal(
        np.asarray(part.image), np.asarray(fit_image(image, num_channels=3, size=(8, 8), resample=resample))
    )
    assert np.array_equal(np.asarray(part.image)[:1], np.asarray(part.filled)[:1])


def test_masks_are_images_arrays_and_files_white_where_pixels_are_kept(tmp_path: Path) -> None:
    levels = np.array([[255, 128, 127, 0]] * 8, dtype=np.uint8).repeat(2, axis=1)
    Image.fromarray(levels).save(tmp_path / "mask.png")
    Image.fromarray(levels).convert("RGB").save(tmp_path / "colour.png")
    clear = Image.new("RGBA", (8, 8), (255, 255, 255, 255))
    clear.paste((255, 255, 255, 0), (4, 0, 8, 8))
    for mask in (levels >= 128, levels, Image.fromarray(levels), tmp_path / "mask.png", tmp_path / "colour.png", clear):
        part = masked_image(noise(8, 8), mask, **GREY)  # type: ignore[arg-type]
        assert part.kept.tolist() == [[True] * 4 + [False] * 4] * 8
    shown = np.asarray(part.shown())
    assert (shown[:, 4:] == 128).all() and np.array_equal(shown[:, :4], np.asarray(part.image)[:, :4])


def test_a_mask_may_have_the_size_of_the_tokenizer() -> None:
    part = masked_image(noise(30, 20), np.eye(8, dtype=bool), **GREY)  # type: ignore[arg-type]
    assert np.array_equal(part.kept, np.eye(8, dtype=bool))


def test_what_is_no_mask_is_refused(tmp_path: Path) -> None:
    image = noise(10, 12)
    white = np.ones((10, 12), dtype=bool)
    for mask, keep, error, message in (
        (None, None, ConfigurationError, "either by a mask or by keep, such as top:0.5, got neither"),
        (white, "top:0.5", ConfigurationError, "such as top:0.5, not both"),
        (
            white[:5],
            None,
            ConfigurationError,
            "of the image, 12 x 10, or of the tokenizer, 8 x 8, got 12 x 5 pixels",
        ),
        (white, None, DataError, "nothing is left to complete: every pixel is kept"),
        (None, "top:1", DataError, "nothing is left to complete"),
        (white[0], None, DataError, r"a mask of bool must be \(H, W\), got \(12,\)"),
        (tmp_path / "none.png", None, DataError, "there is no image the mask .*none.png"),
    ):
        with pytest.raises(error, match=message):
            masked_image(image, mask, keep=keep, **GREY)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="size of the image, 8 x 8, got 12 x 5 pixels"):
        masked_image(noise(8, 8), white[:5], **GREY)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="there is no image"):
        masked_image(tmp_path / "none.png", keep="top:0.5", **GREY)  # type: ignore[arg-type]
