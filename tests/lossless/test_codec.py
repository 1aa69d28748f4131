"""Images to bits and back: every likelihood and prior, the size against the likelihood, and files that are wrong."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.lossless.models import make_prior, make_tokenizer, noise
from vqtok.data import to_pixels
from vqtok.errors import CheckpointError, ConfigurationError, DataError, MismatchError
from vqtok.lossless import LosslessCodec, codec
from vqtok.lossless.files import Header
from vqtok.priors import Prior, negative_log_likelihood
from vqtok.tokenizer import VQTokenizer

PROPER: list[dict[str, Any]] = [{"type": "categorical"}, {"type": "logistic"}, {"type": "mixture", "num_components": 3}]
BOOKS: dict[str, Any] = {
    "type": "product",
    "num_codebooks": 2,
    "each": {"type": "vq", "codebook_size": 5, "code_dim": 4},
}


def bits_of(tokenizer: VQTokenizer, prior: Prior | None, image: Any) -> float:
    """What an evaluation says of an image of the tokenizer's size."""
    pixels = np.array(image).reshape(8, 8, -1)
    pixel_values = to_pixels(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    codes = tokenizer.encode(pixel_values)
    rate = float(negative_log_likelihood(prior, codes)) if prior else codes.numel() * math.log(tokenizer.codebook_size)
    return (float(tokenizer.distortion(pixel_values, codes)) + rate) / math.log(2)


def check(tokenizer: VQTokenizer, prior: Prior | None, image: Any) -> bytes:
    """Compress, decompress by a codec of its own, and compare pixels and, of that size, bits."""
    data = LosslessCodec(tokenizer, prior).compress(image)
    other = LosslessCodec(copy.deepcopy(tokenizer), copy.deepcopy(prior))
    again = other.decompress(data)
    assert again.mode == image.mode and np.array_equal(np.asarray(again), np.asarray(image))
    if image.size == (8, 8):
        payload = 8 * len(Header.from_bytes(data)[1])
        wanted = bits_of(tokenizer, prior, image)
        # at most one word of 32 bits more; no symbol is less probable than 1 in 2^24, which only makes it shorter
        assert payload <= 1.001 * wanted + 33
    return data


@pytest.mark.parametrize("kind", [None, "pixelcnn", "transformer"])
@pytest.mark.parametrize("options", PROPER, ids=lambda options: options["type"])
@pytest.mark.parametrize("num_channels", [1, 3])
def test_pixels_come_back_in_the_bits_of_the_likelihood(
    options: dict[str, Any], kind: str | None, num_channels: int
) -> None:
    tokenizer = make_tokenizer(options, num_channels=num_channels)
    prior = make_prior(tokenizer, kind) if kind else None
    image = noise(channels=num_channels)
    payload = 8 * len(Header.from_bytes(check(tokenizer, prior, image))[1])
    assert payload >= bits_of(tokenizer, prior, image) - 1
    for level in (0, 255):
        check(tokenizer, prior, Image.new(image.mode, (8, 8), (level,) * num_channels if num_channels == 3 else level))


@pytest.mark.parametrize("kind", [None, "transformer"])
def test_several_codes_a_position(kind: str | None) -> None:
    tokenizer = make_tokenizer({"type": "logistic"}, **BOOKS)
    check(tokenizer, make_prior(tokenizer, kind) if kind else None, noise())


def test_codes_of_more_bits_than_the_coder_takes_at_once() -> None:
    tokenizer = make_tokenizer({"type": "logistic"}, type="lfq", codebook_size=2**30, entropy_weight=0)
    check(tokenizer, None, noise())


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 9), (20, 33), (1, 300)])
def test_images_of_any_size(size: tuple[int, int]) -> None:
    tokenizer = make_tokenizer({"type": "mixture", "num_components": 2})
    check(tokenizer, None, noise(*size))


def test_no_pixel_of_the_padding_is_coded() -> None:
    """A uniform decoder: 8 bits a channel of every pixel, 4 bits for each of the codes."""
    tokenizer = make_tokenizer({"type": "categorical"})
    with torch.no_grad():
        for parameter in tokenizer.decoder.parameters():
            parameter.zero_()
    codec = LosslessCodec(tokenizer)
    for height, width, codes in ((8, 8, 4), (5, 6, 4), (9, 8, 6)):
        payload = 8 * len(Header.from_bytes(codec.compress(noise(height, width)))[1])
        exact = 8 * 3 * height * width + 4 * codes
        assert exact <= payload <= exact + 33


def test_a_prior_takes_images_of_its_own_grid() -> None:
    tokenizer = make_tokenizer({"type": "logistic"})
    prior = make_prior(tokenizer, "pixelcnn")
    check(tokenizer, prior, noise(7, 6))
    with pytest.raises(ConfigurationError, match="the prior is of images of 8 x 8 pixels, and this one has 9 x 8"):
        LosslessCodec(tokenizer, prior).compress(noise(8, 9))


@pytest.mark.parametrize("kind", [None, "pixelcnn"])
def test_the_last_digits_of_another_machine_are_rounded_away(monkeypatch: pytest.MonkeyPatch, kind: str | None) -> None:
    """Other sums move what a network gives by some 1e-15; without rounding 1e-8 breaks every one of these files."""
    tokenizer = make_tokenizer({"type": "logistic"})
    prior = make_prior(tokenizer, kind, grid=(4, 4)) if kind else None
    image = noise(16, 16)
    data = LosslessCodec(tokenizer, prior).compress(image)
    rounded, generator = codec._rounded, torch.Generator().manual_seed(0)

    def moved(numbers: torch.Tensor, by: float) -> torch.Tensor:
        return rounded(
            numbers.double() * (1 + by * torch.randn(numbers.shape, generator=generator, dtype=torch.float64))
        )

    monkeypatch.setattr(codec, "_rounded", lambda numbers: moved(numbers, 1e-8))
    for _ in range(5):
        assert np.array_equal(LosslessCodec(tokenizer, prior).decompress(data), image)
    monkeypatch.setattr(codec, "_rounded", lambda numbers: moved(numbers, 1e-4))
    with pytest.raises(DataError, match="damaged, or was compressed on a machine whose arithmetic differs"):
        LosslessCodec(tokenizer, prior).decompress(data)


@pytest.fixture(scope="module")
def tokenizer() -> VQTokenizer:
    return make_tokenizer({"type": "logistic"})


@pytest.fixture(scope="module")
def data(tokenizer: VQTokenizer) -> bytes:
    return LosslessCodec(tokenizer).compress(noise())


def test_a_file_that_is_cut_short_or_longer_is_refused(tokenizer: VQTokenizer, data: bytes) -> None:
    codec = LosslessCodec(tokenizer)
    for length in range(len(data)):
        with pytest.raises(DataError, match="^a.vqt cannot be decompressed: "):
            codec.decompress(data[:length], name="a.vqt")
    for more in (b"\0", b"\1", b"\1\2\3\4", bytes(range(1, 101))):
        with pytest.raises(DataError, match="damaged"):
            codec.decompress(data + more)
    with pytest.raises(DataError, match="more than any image of its size takes"):
        codec.decompress(data + bytes(4000))


def test_no_changed_byte_goes_unnoticed(tokenizer: VQTokenizer, data: bytes) -> None:
    codec = LosslessCodec(tokenizer)
    for index in range(len(data)):
        changed = bytearray(data)
        changed[index] ^= 0x11
        with pytest.raises((DataError, MismatchError, ConfigurationError)):
            codec.decompress(bytes(changed))


@pytest.mark.parametrize(
    ("height", "width", "reason"),
    [
        (2**34, 2**34, "are more than the .* that are allowed"),
        (2**20, 1, "cut short: its 262,144 codes alone take more than its"),
        (9000, 9000, "cut short"),
        (0, 8, "claims 8 x 0 pixels"),
    ],
)
def test_a_short_file_cannot_ask_for_the_memory_of_a_large_image(
    tokenizer: VQTokenizer, data: bytes, monkeypatch: pytest.MonkeyPatch, height: int, width: int, reason: str
) -> None:
    codec = LosslessCodec(tokenizer)
    header, payload = Header.from_bytes(data)
    monkeypatch.setattr(codec, "_code_codes", None)  # work would begin there
    with pytest.raises(DataError, match=reason):
        codec.decompress(replace(header, height=height, width=width).to_bytes() + payload)


def test_other_models_than_those_that_compressed_are_refused(tokenizer: VQTokenizer, data: bytes) -> None:
    other = make_tokenizer({"type": "logistic"}, seed=1)
    shown = (tokenizer.fingerprint[:12], other.fingerprint[:12])
    with pytest.raises(MismatchError, match="compressed with tokenizer {}, and this one is {}: give".format(*shown)):
        LosslessCodec(other).decompress(data)
    trained_on = copy.deepcopy(tokenizer)
    with torch.no_grad():
        next(trained_on.decoder.parameters()).add_(1e-3)
    assert trained_on.fingerprint == tokenizer.fingerprint
    with pytest.raises(MismatchError, match="and another decoder of its codes: give the one it was made with"):
        LosslessCodec(trained_on).decompress(data)
    first, second = make_prior(tokenizer, "pixelcnn"), make_prior(tokenizer, "transformer")
    with pytest.raises(MismatchError, match="with no prior, and this one is .*: leave --prior out"):
        LosslessCodec(tokenizer, first).decompress(data)
    of_prior = LosslessCodec(tokenizer, first).compress(noise())
    with pytest.raises(MismatchError, match="with prior .{8}, and none is given: give that one with --prior"):
        LosslessCodec(tokenizer).decompress(of_prior)
    with pytest.raises(MismatchError, match="with prior .{8}, and this one is .{8}: give that one"):
        LosslessCodec(tokenizer, second).decompress(of_prior)


def test_models_that_give_no_probabilities_are_refused(tokenizer: VQTokenizer) -> None:
    with pytest.raises(ConfigurationError, match="was trained with mse, so its decoder gives pixels and no prob"):
        LosslessCodec(make_tokenizer({"type": "mse"}))
    with pytest.raises(ConfigurationError, match="gaussian is a density, which gives pixels no probabilities"):
        LosslessCodec(make_tokenizer({"type": "gaussian"}))
    stranger = make_prior(tokenizer, "pixelcnn", fingerprint="f" * 64)
    with pytest.raises(MismatchError, match="the prior models codes of tokenizer ffffffffffff"):
        LosslessCodec(tokenizer, stranger)
    broken = make_tokenizer({"type": "logistic"})
    with torch.no_grad():
        for parameter in broken.decoder.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="is not finite: train the model again"):
        LosslessCodec(broken).compress(noise())
