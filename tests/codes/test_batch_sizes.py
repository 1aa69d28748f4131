"""Codes of one set from batches of several sizes: the same but for near-ties.

A convolution or a matrix product over another number of images is split up in another way, for caches and vector
units, and sums floating-point numbers in another order. Latents then differ in their last bits. Where two codes are so
nearly equally far from a latent that these bits decide, the other one is taken: no batch size is more right than
another, so nobody can ask for all codes to agree. The batch size is part of the plan, which keeps one set to one.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from vqtok.codes import codes_array, tokenize_dataset
from vqtok.data import to_pixels
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig

IMAGES, SIDE = 240, 64
LATENT_ERROR = 1e-5  # of latents of about 1, as float32 has 24 bits and a sum here some thousand terms


@pytest.fixture(scope="module")
def tokenizer() -> VQTokenizer:
    """64x64 RGB to 16x16 of 1,024 codes, which stand where latents lie, so that many of them are used."""
    torch.manual_seed(0)
    network = {"type": "conv", "hidden_size": 32, "residual_size": 16, "num_residual_blocks": 2}
    quantizer = {"type": "vq", "codebook_size": 1024, "code_dim": 8}
    made = VQTokenizer(VQTokenizerConfig(image_size=SIDE, num_channels=3, network=network, quantizer=quantizer)).eval()
    with torch.no_grad():
        latents = made.encoder(torch.rand(8, 3, SIDE, SIDE) * 2 - 1).permute(0, 2, 3, 1).reshape(-1, 8)
        made.quantizer.codebook.copy_(latents[torch.randperm(len(latents))[:1024]])
    return made


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    noise = np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(noise.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(folder / f"{number:03d}.bmp")
    return folder


def distances(latents: npt.NDArray[np.float64], codes: npt.NDArray[Any], codebook: npt.NDArray[np.float64]) -> Any:
    """Of each latent (n, D) to its code, in float64: (n,)."""
    return np.sqrt(((latents - codebook[codes]) ** 2).sum(1))


def check_ties(
    grids: npt.NDArray[Any], others: npt.NDArray[Any], images: Path, tokenizer: VQTokenizer
) -> npt.NDArray[np.bool_]:
    """Where two sets of grids differ (N, h, w), after seeing that each time both codes are equally near to a latent."""
    codebook = tokenizer.quantizer.codebook.detach().double().numpy()
    differ: npt.NDArray[np.bool_] = grids != others
    for image in np.flatnonzero(differ.any(axis=(1, 2))):
        with Image.open(images / f"{image:03d}.bmp") as opened:
            pixels = to_pixels(torch.from_numpy(np.asarray(opened).transpose(2, 0, 1).copy()))[None]
        with torch.inference_mode():
            latents = tokenizer.encoder(pixels)[0].double().permute(1, 2, 0).numpy()[differ[image]]
        both = [distances(latents, each[image][differ[image]], codebook) for each in (grids, others)]
        assert np.abs(both[0] - both[1]).max() < LATENT_ERROR * np.abs(latents).max()
    return differ


def tokenized(images: Path, tokenizer: VQTokenizer, out: Path, batch_size: int) -> npt.NDArray[Any]:
    return codes_array(tokenize_dataset(images, tokenizer, out, batch_size=batch_size, shard_rows=97, progress=False))


def test_codes_of_other_batch_sizes_agree_but_for_near_ties(
    tmp_path: Path, images: Path, tokenizer: VQTokenizer
) -> None:
    grids = {size: tokenized(images, tokenizer, tmp_path / f"{size}", size) for size in (1, 3, 16, 64, 240)}
    assert len(np.unique(grids[64])) > 500
    for size, found in grids.items():
        differ = check_ties(found, grids[64], images, tokenizer)
        print(f"batches of {size}: {differ.sum()} of {differ.size} codes differ from those of batches of 64")
        assert differ.mean() <= 1e-4


def test_near_ties_are_what_differs(tmp_path: Path, images: Path, tokenizer: VQTokenizer) -> None:
    """Where every code has a near copy, last bits decide everywhere, and on CPU those of single images are others."""
    tied = copy.deepcopy(tokenizer)
    with torch.no_grad():
        near = tied.quantizer.codebook[:512]
        tied.quantizer.codebook[512:] = near + near.abs().max() * 1e-7 * torch.randn(near.shape)
    alone, together = (tokenized(images, tied, tmp_path / f"{size}", size) for size in (1, 64))
    differ = check_ties(alone, together, images, tied)
    print(f"with near copies of all codes {differ.mean():.1%} of them differ")
    assert differ.any() and np.array_equal(alone % 512, together % 512)


def test_a_code_that_is_no_near_tie_would_be_seen(tokenizer: VQTokenizer) -> None:
    """The gap of two codes of a latent is hundreds of times what is allowed, where nothing is tied."""
    torch.manual_seed(1)
    with torch.inference_mode():
        latents = tokenizer.encoder(torch.rand(1, 3, SIDE, SIDE) * 2 - 1)[0].double().permute(1, 2, 0).reshape(-1, 8)
        nearest = torch.cdist(latents, tokenizer.quantizer.codebook.double()).sort(1)[0]
    gaps = (nearest[:, 1] - nearest[:, 0]).numpy()
    assert np.median(gaps) > 100 * LATENT_ERROR * float(latents.abs().max())
