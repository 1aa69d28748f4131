"""The health of a tiny tokenizer, against its codes looked at one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vqtok.data import ImageDataset, ImageSource, open_images, to_pixels
from vqtok.data.loading import sampled_rows
from vqtok.errors import ConfigurationError
from vqtok.evaluation import code_use, count_codes, measure_health
from vqtok.evaluation.codebook import top_share
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig


@pytest.fixture
def source(images_folder: Path) -> ImageSource:
    return open_images(str(images_folder), split="train", test_share=0.2)


def make(quantizer: dict[str, Any], **changes: Any) -> VQTokenizer:
    torch.manual_seed(0)
    network = {"type": "conv", "hidden_size": 8, "residual_size": 4, "num_residual_blocks": 1}
    values: dict[str, Any] = {"image_size": 16, "num_channels": 1, "network": network, "quantizer": quantizer}
    return VQTokenizer(VQTokenizerConfig(**(values | changes))).eval()


PRODUCT = {"type": "product", "num_codebooks": 2, "each": {"type": "ema", "codebook_size": 8, "code_dim": 2}}


@pytest.mark.parametrize(
    "quantizer",
    [{"type": "ema", "codebook_size": 16, "code_dim": 4}, {"type": "fsq", "levels": [3, 5]}, PRODUCT],
    ids=lambda quantizer: quantizer["type"],
)
def test_numbers_are_those_of_the_codes(quantizer: dict[str, Any], source: ImageSource) -> None:
    tokenizer = make(quantizer)
    pixels = ImageDataset(source, image_size=(16, 16), num_channels=1).__getitems__(sampled_rows(len(source), 7))[
        "pixels"
    ]
    codes = tokenizer.encode(to_pixels(pixels)).numpy()
    size, codebooks = tokenizer.codebook_size, tokenizer.num_codebooks
    health = measure_health(tokenizer, source, num_images=7, batch_size=3)
    np.testing.assert_array_equal(health.counts, count_codes(codes, codebook_size=size, num_codebooks=codebooks))
    use, numbers = code_use(codes, codebook_size=size, num_codebooks=codebooks), health.numbers()
    assert numbers["perplexity"] == use.perplexity
    assert numbers["codes_in_use"] + numbers["dead_codes"] == codebooks * size
    columns = codes.reshape(7, 4, 4, codebooks)
    for q in range(codebooks):
        for row, column in np.ndindex(4, 4):
            assert health.maps["codes in use"][q, row, column] == len(set(columns[:, row, column, q]))
    assert health.about["num_images"] == 7 and health.about["split"] == "train"
    assert len(health.distances) == codebooks


@pytest.mark.parametrize("batch_size", [1, 5, 128])
def test_patches_are_the_nearest_of_all(batch_size: int, tiny_tokenizer: VQTokenizer, source: ImageSource) -> None:
    """Against a search in plain numpy: for each code the position with the smallest distance in each image."""
    pixels = (
        ImageDataset(source, image_size=(16, 16), num_channels=1).__getitems__(range(len(source)))["pixels"].numpy()
    )
    with torch.no_grad():
        latents = tiny_tokenizer.encoder(torch.from_numpy(pixels / 127.5 - 1).float()).numpy()
    vectors = tiny_tokenizer.quantizer.codebook.numpy()
    away = ((latents[:, None] - vectors[None, :, :, None, None]) ** 2).sum(axis=2)  # image, code, row, column
    codes = away.argmin(axis=1)
    health = measure_health(tiny_tokenizer, source, batch_size=batch_size)
    used = [int((codes == each.code).sum()) for each in health.examples]
    assert used == sorted(used, reverse=True) and used[0] == np.bincount(codes.ravel()).max()
    for each in health.examples:
        assert each.share == pytest.approx((codes == each.code).mean())
        positions = [
            min((away[(image, each.code, *at)], image, *at) for at in np.argwhere(codes[image] == each.code))
            for image in range(len(pixels))
            if (codes[image] == each.code).any()
        ]
        best = sorted(positions)[:8]
        assert len(each.patches) == len(best) > 0
        for patch, (_, image, row, column) in zip(each.patches, best, strict=True):
            position = pixels[image, 0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            np.testing.assert_array_equal(patch[0, 4:8, 4:8], position)


def test_what_is_decoded_is_the_middle_of_that_code_everywhere(
    tiny_tokenizer: VQTokenizer, source: ImageSource
) -> None:
    example = measure_health(tiny_tokenizer, source, num_images=3).examples[0]
    (whole,) = tiny_tokenizer.detokenize(torch.full((1, 4, 4), example.code))
    np.testing.assert_allclose(example.decoded[0], np.asarray(whole)[4:16, 4:16], atol=1)


def test_colour_two_codes_and_a_grid_of_one_position(source: ImageSource) -> None:
    tokenizer = make({"type": "vq", "codebook_size": 2, "code_dim": 1}, num_channels=3, image_size=4)
    health = measure_health(tokenizer, source)
    assert health.maps["perplexity"].shape == (1, 1, 1) and health.counts.sum() == len(source)
    assert health.examples[0].patches.shape[1:] == (4, 12, 12)


def test_the_share_of_the_most_used_codes() -> None:
    counts = np.zeros((2, 150), dtype=np.int64)
    counts[0, :4] = [5, 1, 3, 1]  # of 150 codes the top percent are two
    counts[1] = 2
    assert top_share(counts) == pytest.approx((0.8 + 2 / 150) / 2)


@pytest.mark.parametrize("wrong", [{"num_images": 0}, {"batch_size": 0}])
def test_what_makes_no_sense_is_refused(
    wrong: dict[str, int], tiny_tokenizer: VQTokenizer, source: ImageSource
) -> None:
    with pytest.raises(ConfigurationError, match="must be (at least|from) 1.*, got 0"):
        measure_health(tiny_tokenizer, source, **wrong)
