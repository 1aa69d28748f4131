"""Codes in whatever form they come: lists, arrays and columns, one grid, or flat as a prior reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

from vqtok.codes import load_codes, tokenize_dataset
from vqtok.errors import ConfigurationError
from vqtok.priors import PriorBinding, build_prior, sample_codes
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig


@pytest.fixture
def residual_tokenizer() -> VQTokenizer:
    """8x12 grey images to 2x3 grids of 2 codes out of 5."""
    torch.manual_seed(0)
    quantizer = {"type": "residual", "num_codebooks": 2, "each": {"type": "vq", "codebook_size": 5, "code_dim": 4}}
    network = {"type": "conv", "hidden_size": 8, "residual_size": 4, "num_residual_blocks": 1}
    config = VQTokenizerConfig(image_size=[8, 12], num_channels=1, network=network, quantizer=quantizer)
    return VQTokenizer(config).eval()


def some_codes(tokenizer: VQTokenizer, count: int) -> torch.Tensor:
    shape = (count, *tokenizer.grid) if tokenizer.num_codebooks == 1 else (count, *tokenizer.grid, 2)
    return torch.randint(tokenizer.codebook_size, shape, generator=torch.Generator().manual_seed(1))


FORMS: dict[str, Callable[[torch.Tensor], Any]] = {
    "nested lists": lambda codes: codes.tolist(),
    "list of arrays": lambda codes: list(codes.numpy().astype(np.uint16)),
    "list of tensors": list,
    "flat": lambda codes: codes.flatten(1),
    "flat lists": lambda codes: codes.flatten(1).tolist(),
    "not contiguous": lambda codes: codes.transpose(1, 2).contiguous().transpose(1, 2),
    "read-only array": lambda codes: np.broadcast_to(codes.numpy(), codes.shape),
    **{
        f"array of {name}": lambda codes, name=name: codes.numpy().astype(name)
        for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", ">u2")
    },
    **{
        f"tensor of {dtype}": lambda codes, dtype=dtype: codes.to(dtype)
        for dtype in (torch.uint8, torch.int32, torch.uint16, torch.uint32)
    },
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("which", ["tiny_tokenizer", "residual_tokenizer"])
def test_codes_of_every_form_are_decoded_alike(request: pytest.FixtureRequest, which: str, form: str) -> None:
    tokenizer: VQTokenizer = request.getfixturevalue(which)
    codes = some_codes(tokenizer, 3)
    expected = [np.asarray(image) for image in tokenizer.detokenize(codes)]
    images = tokenizer.detokenize(FORMS[form](codes))
    assert np.array_equal(np.stack(images), np.stack(expected))
    assert torch.equal(tokenizer.decode(FORMS[form](codes)), tokenizer.decode(codes))


@pytest.mark.parametrize("form", [lambda grid: grid, lambda grid: grid.tolist(), lambda grid: grid.flatten().numpy()])
@pytest.mark.parametrize("which", ["tiny_tokenizer", "residual_tokenizer"])
def test_one_grid_is_one_image(request: pytest.FixtureRequest, which: str, form: Callable[[torch.Tensor], Any]) -> None:
    tokenizer: VQTokenizer = request.getfixturevalue(which)
    codes = some_codes(tokenizer, 3)
    images = tokenizer.detokenize(form(codes[1]))
    assert len(images) == 1
    assert np.array_equal(np.asarray(images[0]), np.asarray(tokenizer.detokenize(codes)[1]))


def test_what_datasets_gives_is_decoded(tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer) -> None:
    tokenize_dataset(images_folder, tiny_tokenizer, tmp_path / "codes", progress=False)
    rows = load_codes(tmp_path / "codes")
    assert isinstance(rows, datasets.Dataset)
    expected = np.stack(tiny_tokenizer.detokenize(np.array(rows["codes"][:])))
    for codes in (
        rows["codes"],
        rows[:]["codes"],
        rows.with_format("numpy")["codes"],
        rows.with_format("torch")[:]["codes"],
    ):
        assert np.array_equal(np.stack(tiny_tokenizer.detokenize(codes)), expected), type(codes)
    assert np.array_equal(np.asarray(tiny_tokenizer.detokenize(rows[5]["codes"])[0]), expected[5])


def test_what_a_prior_samples_and_reads_is_decoded(residual_tokenizer: VQTokenizer) -> None:
    binding = PriorBinding(
        fingerprint=residual_tokenizer.fingerprint, grid=(2, 3), codebook_size=5, num_codebooks=2, label_names=("a",)
    )
    sizes = {"type": "transformer", "hidden_size": 8, "num_layers": 1, "num_heads": 1}
    codes = sample_codes(build_prior(binding, sizes), num_images=4, seed=0)
    images = residual_tokenizer.detokenize(codes)
    assert np.array_equal(np.stack(residual_tokenizer.detokenize(binding.flatten(codes))), np.stack(images))


def test_a_batch_of_another_grid_or_of_none_is_decoded(tiny_tokenizer: VQTokenizer) -> None:
    assert tiny_tokenizer.decode(torch.zeros(2, 3, 5, dtype=torch.int64)).shape == (2, 1, 12, 20)
    assert tiny_tokenizer.decode(torch.zeros(0, 4, 4, dtype=torch.int64)).shape == (0, 1, 16, 16)
    assert tiny_tokenizer.detokenize([]) == []


WANTED = r"codes must be integers of shape \(B, 4, 4\), \(4, 4\) or \(B, 16\)"


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(3, 15, dtype=torch.int64), rf"{WANTED}, got int64 of shape \(3, 15\)"),
        (np.zeros((2, 4, 4, 1), np.uint16), rf"{WANTED}, got uint16 of shape \(2, 4, 4, 1\)"),
        (np.zeros((2, 4, 4)), rf"{WANTED}, got float64 of shape \(2, 4, 4\)"),
        (torch.zeros(2, 4, 4), rf"{WANTED}, got float32 of shape \(2, 4, 4\)"),
        (torch.zeros(2, 4, 4, dtype=torch.bool), rf"{WANTED}, got bool of shape \(2, 4, 4\)"),
        (3, rf"{WANTED}, got int64 of shape \(\)"),
        ([[1, 2], [3]], rf"{WANTED}, got a list that is no array"),
        ("codes", rf"{WANTED}, got .* of shape \(\)"),
        (None, rf"{WANTED}, got .* of shape \(\)"),
        (np.full((1, 4, 4), 16), r"codes must be in \[0, 16\), got 16 to 16"),
        ([[[-1] * 4] * 4], r"codes must be in \[0, 16\), got -1 to -1"),
    ],
)
def test_anything_else_is_refused_in_one_line(tiny_tokenizer: VQTokenizer, codes: Any, message: str) -> None:
    for method in (tiny_tokenizer.decode, tiny_tokenizer.detokenize):
        with pytest.raises(ConfigurationError, match=f"^{message}$"):
            method(codes)


def test_several_codebooks_are_named_in_the_shape(residual_tokenizer: VQTokenizer) -> None:
    message = r"of shape \(B, 2, 3, 2\), \(2, 3, 2\) or \(B, 12\), got int64 of shape \(1, 2, 3\)$"
    with pytest.raises(ConfigurationError, match=message):
        residual_tokenizer.detokenize(torch.zeros(1, 2, 3, dtype=torch.int64))
