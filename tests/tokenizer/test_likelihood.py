"""What a tokenizer that was trained with a likelihood says of pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vqtok.errors import ConfigurationError
from vqtok.losses import to_levels, to_values
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig


def make(likelihood: Any = "logistic") -> VQTokenizer:
    """8 x 8 pixels of three channels to 2 x 2 codes."""
    torch.manual_seed(0)
    config = VQTokenizerConfig(
        image_size=8,
        network={"type": "conv", "hidden_size": 8, "residual_size": 4, "num_residual_blocks": 1},
        quantizer={"type": "vq", "codebook_size": 16, "code_dim": 4},
        likelihood={"type": likelihood},
    )
    return VQTokenizer(config).eval()


def images(count: int = 5, size: int = 8) -> Tensor:
    return to_values(torch.randint(256, (count, 3, size, size), generator=torch.Generator().manual_seed(1)))


def test_distortion_is_that_of_the_decoded_codes_whatever_the_size_of_the_images() -> None:
    tokenizer = make()
    for size in (8, 12):
        pixels = images(size=size)
        codes = tokenizer.encode(pixels)
        with torch.no_grad():
            parameters = tokenizer.decoder(tokenizer.quantizer.decode(codes))
        wanted = -tokenizer.pixel_likelihood.log_prob(parameters, to_levels(pixels)).double().sum((1, 2, 3))
        torch.testing.assert_close(tokenizer.distortion(pixels, codes), wanted, rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 3, 8, 8), (5, 1, 8, 8), (5, 3, 4, 8), (3, 8, 8), (5, 3, 16, 16)])
def test_pixels_of_another_shape_than_the_codes_stand_for_are_refused(shape: tuple[int, ...]) -> None:
    """One channel would be broadcast to three, and give a number."""
    tokenizer = make()
    codes = tokenizer.encode(images())
    with pytest.raises(
        ConfigurationError, match=r"pixel values must be \(5, 3, 8, 8\), as their codes stand for, got"
    ) as caught:
        tokenizer.distortion(torch.zeros(shape), codes)
    assert "\n" not in str(caught.value) and str(shape) in str(caught.value)


def test_a_tokenizer_of_before_likelihoods_is_one_of_mse_with_the_same_fingerprint(tmp_path: Path) -> None:
    tokenizer = make("mse")
    tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("likelihood") == {"type": "mse"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = VQTokenizer.from_pretrained(tmp_path)
    assert loaded.config.likelihood == {"type": "mse"} and loaded.fingerprint == tokenizer.fingerprint
    codes = loaded.encode(images())
    assert torch.equal(codes, tokenizer.encode(images())) and torch.equal(loaded.decode(codes), tokenizer.decode(codes))
    with pytest.raises(ConfigurationError, match="was trained with mse, so its decoder gives pixels and no probab"):
        loaded.distortion(images(), codes)
