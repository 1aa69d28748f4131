"""Colours tell codes apart, and an image grid shows each image over its own grid."""

from __future__ import annotations

import base64
import io

import numpy as np
import torch
from PIL import Image

from vqtok.report.images import code_colours, code_image_grid, data_uri
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig


def test_close_vectors_have_close_colours(tiny_tokenizer: VQTokenizer) -> None:
    with torch.no_grad():
        tiny_tokenizer.quantizer.codebook.zero_()
        tiny_tokenizer.quantizer.codebook[:, 0] = torch.arange(16.0)  # codes in a row along one direction
    colours = code_colours(tiny_tokenizer, np.arange(16)).astype(int)
    assert colours.shape == (16, 3) and len(np.unique(colours, axis=0)) == 16
    along = colours[:, 0] if colours[0, 0] < colours[-1, 0] else colours[::-1, 0]
    assert (np.diff(along) > 0).all() and (along.min(), along.max()) == (40, 240)


def test_colours_are_those_of_the_codebook_that_is_shown() -> None:
    """The vectors of the other one are larger, and lie in another order."""
    each = {"type": "ema", "codebook_size": 16, "code_dim": 2}
    tokenizer = VQTokenizer(VQTokenizerConfig(quantizer={"type": "product", "num_codebooks": 2, "each": each}))
    first, second = (member.codebook.zero_() for member in tokenizer.quantizer.members())
    first[:, 0] = torch.arange(16.0)
    second[:, 0] = 100 * torch.randperm(16, generator=torch.Generator().manual_seed(0))
    red = code_colours(tokenizer, np.arange(16)).astype(int)[:, 0]
    assert (np.diff(red) > 0).all() or (np.diff(red) < 0).all()


def test_an_image_grid_shows_every_image_over_its_codes(tiny_tokenizer: VQTokenizer) -> None:
    codes = np.random.default_rng(0).integers(0, 16, (5, 4, 4))
    grid = np.asarray(code_image_grid(tiny_tokenizer, codes, columns=2))
    scale, gap = 84 // 16, 3
    step = 16 * scale + gap
    assert grid.shape == (gap + 4 * step, gap + 2 * step, 3)  # 2 x 2 images and their grids; the fifth fills no row
    decoded = tiny_tokenizer.detokenize(torch.from_numpy(codes))
    colours = code_colours(tiny_tokenizer, np.arange(16))
    for index in range(4):
        top, left = gap + 2 * (index // 2) * step, gap + index % 2 * step
        shown = grid[top : top + 16 * scale : scale, left : left + 16 * scale : scale]
        assert (shown == np.asarray(decoded[index])[..., None]).all()
        below = grid[top + step : top + step + 16 * scale : 4 * scale, left : left + 16 * scale : 4 * scale]
        assert (below == colours[codes[index]]).all()


def test_a_uri_holds_the_image() -> None:
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    head, _, body = data_uri(image).partition(",")
    assert head == "data:image/png;base64"
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(body)))) == np.asarray(image)).all()
