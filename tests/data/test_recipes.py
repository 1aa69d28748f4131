"""The resizing of published tokenizers: arrays that the packages they use gave, and their formulas written out."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Resampling

from vqtok.data import fit_image, image_array
from vqtok.data.fitting import RESIZING, Crop
from vqtok.data.recipes import RECIPES, _opencv_resized
from vqtok.errors import ConfigurationError, DataError
from vqtok.tokenizer import VQImageProcessor, VQTokenizer, VQTokenizerConfig
from vqtok.tokenizer.configuration import TokenizerOptions

SIZES = [(500, 375), (375, 500), (333, 256), (256, 256), (100, 80), (2000, 601), (1023, 1024), (513, 77), (64, 64)]


def noise(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    generator = np.random.default_rng(0)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    return Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8))


def fitted(image: Image.Image, recipe: str, side: int = 64) -> np.ndarray:
    return np.asarray(
        fit_image(image, num_channels=3 if image.mode == "RGB" else 1, size=(side, side), resample=recipe)
    )


def test_every_recipe_can_be_chosen() -> None:
    assert set(get_args(TokenizerOptions.model_fields["resample"].annotation)) == set(RESIZING)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("size", SIZES)
def test_any_image_becomes_a_square(size: tuple[int, int], recipe: str, mode: str) -> None:
    assert fitted(noise(size, mode), recipe).shape == (64, 64, 3)[: 3 if mode == "RGB" else 2]


# cv2.resize of OpenCV 5.0.0 with INTER_LINEAR
GREY = [
    [139, 74, 229, 241, 169],
    [65, 6, 160, 149, 106],
    [38, 175, 188, 205, 175],
    [229, 98, 249, 10, 148],
    [95, 86, 147, 198, 66],
    [39, 106, 213, 171, 45],
    [167, 57, 69, 81, 55],
]
OF_OPENCV = [
    [[44, 166], [131, 45], [87, 118]],
    [
        [125, 126, 230, 172],
        [57, 93, 164, 128],
        [121, 169, 157, 159],
        [143, 128, 146, 102],
        [59, 137, 185, 66],
        [144, 68, 86, 58],
    ],
    [
        [139, 110, 83, 181, 233, 240, 200, 169],
        [105, 78, 53, 149, 198, 199, 166, 140],
        [62, 44, 30, 118, 160, 155, 130, 112],
        [45, 82, 132, 164, 183, 189, 171, 156],
        [107, 125, 151, 190, 186, 139, 151, 165],
        [229, 172, 107, 202, 174, 25, 88, 148],
        [144, 120, 96, 155, 167, 133, 110, 96],
        [80, 85, 96, 142, 173, 189, 117, 60],
        [44, 70, 110, 175, 196, 175, 102, 47],
        [109, 96, 82, 117, 130, 123, 82, 50],
        [167, 119, 58, 65, 73, 80, 66, 55],
    ],
]


@pytest.mark.parametrize("expected", OF_OPENCV, ids=["3x2", "6x4", "11x8"])
def test_bilinear_is_that_of_opencv_to_the_bit(expected: list[list[int]]) -> None:
    pixels = np.array(GREY, dtype=np.uint8)[:, :, None]
    resized = _opencv_resized(pixels, len(expected), len(expected[0]))
    assert resized[:, :, 0].tolist() == expected
    three = _opencv_resized(np.repeat(pixels, 3, axis=2), len(expected), len(expected[0]))
    assert (three == resized).all()


@pytest.mark.parametrize("size", SIZES)
def test_opencv_bilinear_is_near_its_definition(size: tuple[int, int]) -> None:
    """Between the four nearest pixels of the original, whatever the scale."""
    image, side = noise(size, "L"), 64
    pixels = np.asarray(image).astype(np.float64)
    width, height = (round(length * side / min(size)) for length in size)
    left, top = (width - side) // 2, (height - side) // 2
    found = fitted(image, "opencv-bilinear", side)
    for row, column in ((0, 0), (side - 1, side - 1), (17, 40), (side // 2, 0)):
        y = min(max((top + row + 0.5) * size[1] / height - 0.5, 0), size[1] - 1)
        x = min(max((left + column + 0.5) * size[0] / width - 0.5, 0), size[0] - 1)
        rows, columns = [math.floor(y), math.ceil(y)], [math.floor(x), math.ceil(x)]
        across = pixels[rows][:, columns] @ [1 - x % 1, x % 1]
        assert abs(float(across @ [1 - y % 1, y % 1]) - float(found[row, column])) <= 1


@pytest.mark.parametrize("filter", [Resampling.BILINEAR, Resampling.BICUBIC, Resampling.LANCZOS])
@pytest.mark.parametrize(
    ("size", "resized", "corner"),
    [((500, 375), (85, 64), (10, 0)), ((375, 500), (64, 85), (0, 10)), ((130, 100), (83, 64), (10, 0))]
    + [((64, 69), (64, 69), (0, 2)), ((64, 71), (64, 71), (0, 4)), ((80, 64), (80, 64), (8, 0))],
)
def test_shorter_side_is_that_of_torchvision(
    filter: Resampling, size: tuple[int, int], resized: tuple[int, int], corner: tuple[int, int]
) -> None:
    """Sizes and corners by hand: the longer side is cut off, half a pixel goes to the even one."""
    image = noise(size)
    expected = image if size == resized else image.resize(resized, filter)
    expected = expected.crop((*corner, corner[0] + 64, corner[1] + 64))
    assert np.array_equal(fitted(image, f"shorter-side-{filter.name.lower()}"), np.asarray(expected))


@pytest.mark.parametrize(
    ("size", "halved", "resized", "corner"),
    [
        ((500, 375), [(250, 187), (125, 93)], (86, 64), (11, 0)),
        ((375, 500), [(187, 250), (93, 125)], (64, 86), (0, 11)),
        ((100, 80), [], (80, 64), (8, 0)),
        ((128, 127), [], (65, 64), (0, 0)),
        ((128, 129), [(64, 64)], (64, 64), (0, 0)),
    ],
)
def test_center_crop_adm_is_that_of_guided_diffusion(
    size: tuple[int, int], halved: list[tuple[int, int]], resized: tuple[int, int], corner: tuple[int, int]
) -> None:
    image = expected = noise(size)
    for half in halved:
        expected = expected.resize(half, Resampling.BOX)
    expected = expected.resize(resized, Resampling.BICUBIC).crop((*corner, corner[0] + 64, corner[1] + 64))
    assert np.array_equal(fitted(image, "center-crop-adm"), np.asarray(expected))


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_image_whose_resized_whole_would_fill_the_memory_is_refused(recipe: str) -> None:
    with pytest.raises(DataError, match=rf"^a of 1 x 101 pixels is more than 100 times as long as wide, and {recipe} "):
        fit_image(Image.new("RGB", (1, 101)), num_channels=3, size=(8, 8), resample=recipe, name="a")
    assert fit_image(Image.new("RGB", (100, 1)), num_channels=3, size=(8, 8), resample=recipe).size == (8, 8)
    assert fit_image(Image.new("RGB", (1, 101)), num_channels=3, size=(8, 8)).size == (8, 8)


def test_chameleon_rounds_where_torchvision_cuts() -> None:
    image = noise((500, 377))  # 84.88 pixels wide
    expected = image.resize((85, 64), Resampling.LANCZOS).crop((10, 0, 74, 64))
    assert np.array_equal(fitted(image, "chameleon"), np.asarray(expected))
    cut = image.resize((84, 64), Resampling.LANCZOS).crop((10, 0, 74, 64))
    assert np.array_equal(fitted(image, "shorter-side-lanczos"), np.asarray(cut))


def by_formula(image: Image.Image, recipe: str, side: int) -> Image.Image:
    """Each source's own arithmetic on height and width, with Pillow's filters."""
    if recipe == "opencv-bilinear":
        width, height = (round(length * side / min(image.size)) for length in image.size)  # albumentations' py3round
        return middle(by_opencv(image, height, width), (height - side) // 2, (width - side) // 2, side)
    if recipe.startswith("shorter-side"):  # torchvision's Resize and CenterCrop
        h, w = image.height, image.width
        new_h, new_w = (int(side * h / w), side) if w <= h else (side, int(side * w / h))
        image = image.resize((new_w, new_h), Resampling[recipe.rpartition("-")[2].upper()])
        return middle(image, int(round((new_h - side) / 2.0)), int(round((new_w - side) / 2.0)), side)
    while recipe == "center-crop-adm" and min(*image.size) >= 2 * side:
        image = image.resize(tuple(length // 2 for length in image.size), Resampling.BOX)
    size = tuple(round(length * side / min(*image.size)) for length in image.size)
    image = image.resize(size, Resampling.LANCZOS if recipe == "chameleon" else Resampling.BICUBIC)
    return middle(image, (size[1] - side) // 2, (size[0] - side) // 2, side)


def middle(image: Image.Image, top: int, left: int, side: int) -> Image.Image:
    return Image.fromarray(np.asarray(image)[top : top + side, left : left + side])


def by_opencv(image: Image.Image, height: int, width: int) -> Image.Image:
    """Position by position in whole numbers: weights of 2^-11; OpenCV's vectors cut 4 bits, 16 bits, and round 2."""
    pixels = np.asarray(image).astype(int).tolist()

    def around(position: int, before: int, after: int) -> tuple[int, float]:
        at = np.float32((position + 0.5) * (before / after) - 0.5)
        return math.floor(at), float(at - np.float32(math.floor(at)))

    def whole(share: float) -> tuple[int, int]:
        return round((1 - share) * 2048), round(share * 2048)

    result = np.empty((height, width, *np.asarray(image).shape[2:]), dtype=np.uint8)
    for row in range(height):
        y, down = around(row, image.height, height)
        lines = [pixels[min(max(each, 0), image.height - 1)] for each in (y, y + 1)]
        for column in range(width):
            x, across = around(column, image.width, width)
            if x < 0 or x >= image.width - 1:
                x, across = min(max(x, 0), image.width - 1), 0.0
            pairs = [(line[x], line[min(x + 1, image.width - 1)]) for line in lines]
            channels = [[np.atleast_1d(each) for each in pair] for pair in pairs]
            sums = [(a * whole(across)[0] + b * whole(across)[1]) >> 4 for a, b in channels]
            parts = [(each * weight) >> 16 for each, weight in zip(sums, whole(down), strict=True)]
            result[row, column] = ((sum(parts) + 2) >> 2).reshape(result.shape[2:])
    return Image.fromarray(result)


FORMULA_SIZES = [(61, 47), (47, 61), (33, 32), (32, 41), (32, 32), (20, 17), (17, 20), (9, 31), (129, 64), (64, 131)]


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_its_formula_to_the_bit(recipe: str, mode: str) -> None:
    """Odd sides, upright and lying, smaller than the target and equal to it."""
    for size in FORMULA_SIZES:
        image = noise(size, mode)
        expected = np.asarray(by_formula(image, recipe, 32))
        assert np.array_equal(fitted(image, recipe, 32), expected), size


def test_chameleon_composes_what_is_transparent_over_white() -> None:
    """In float64, as its code does: Pillow's whole numbers differ by one level at most."""
    colours = np.asarray(noise((64, 64)))
    alpha = np.asarray(noise((64, 64), "L"))[:, :, None]
    image = Image.fromarray(np.concatenate([colours, alpha], axis=2))
    found = np.asarray(fit_image(image, num_channels=3, size=(64, 64), resample="chameleon"))
    share = alpha / 255.0
    expected = ((1 - share) * 255 + share * colours).astype(np.uint8)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def test_a_tokenizer_keeps_its_recipe() -> None:
    plain, adm = (VQTokenizerConfig(image_size=64, resample=name) for name in ("bicubic", "center-crop-adm"))
    assert plain.preprocessing["resize"] == "shorter side, then centre crop, only when needed"
    assert adm.preprocessing["resize"] == "as center-crop-adm"
    model, image = VQTokenizer(adm), noise((300, 200))
    pixels = model.image_processor(image)["pixel_values"]
    expected = image_array(image, num_channels=3, size=(64, 64), resample="center-crop-adm")
    assert np.array_equal(((pixels[0] + 1) * 127.5).round().to(dtype=pixels.dtype).numpy(), expected.astype(np.float32))
    assert VQImageProcessor.from_dict(model.image_processor.to_dict()).resample == "center-crop-adm"


def test_what_a_recipe_cannot_do_is_one_line() -> None:
    with pytest.raises(ConfigurationError, match="^chameleon gives square images, and the size is 32 x 64: [^\n]*$"):
        VQTokenizerConfig(image_size=[32, 64], resample="chameleon")
    with pytest.raises(ConfigurationError, match="^chameleon keeps the middle of an image: [^\n]*$"):
        fit_image(noise((9, 9)), num_channels=3, size=(8, 8), resample="chameleon", crop=Crop(share=0.9))
    with pytest.raises(ConfigurationError, match="^resample must be one of bicubic, [^\n]* Did you mean 'chameleon'"):
        fit_image(noise((9, 9)), num_channels=3, size=(8, 8), resample="camelion")
