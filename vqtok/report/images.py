"""Codes as images: a colour for every code, so that a grid can be seen beside the image that it stands for."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from vqtok.data import image_grid
from vqtok.evaluation.distances import code_vectors
from vqtok.quantizers.counting import COUNTABLE
from vqtok.tokenizer import VQTokenizer

__all__ = ["code_colours", "code_image_grid", "data_uri"]


def code_colours(tokenizer: VQTokenizer, codes: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """A colour for each of some codes, (n,) -> uint8 (n, 3), such that codes with vectors close to each other match.

    Of several codebooks the codes are those of the first. The vectors are projected on their first three principal
    components. Ranks along them, rather than values, become red, green and blue, so that the whole range of colours is
    used.
    """
    found = code_vectors(tokenizer.quantizer, codes=torch.from_numpy(codes), device=tokenizer.device)
    vectors = found.double().cpu().numpy()  # (n, D)
    centred = vectors - vectors.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    components = centred @ directions[:3].T  # (n, 3), fewer where D is below 3
    ranks = components.argsort(axis=0).argsort(axis=0)
    colours = np.full((len(vectors), 3), 128, dtype=np.uint8)
    colours[:, : ranks.shape[1]] = 40 + ranks * 200 // max(1, len(vectors) - 1)
    return colours


def code_image_grid(tokenizer: VQTokenizer, codes: npt.NDArray[Any], *, columns: int) -> Image.Image:
    """Rows of images decoded from codes (N, h, w[, Q]), under each row the grids of their codes in false colours.

    Of several codebooks the first is shown; images that do not fill a row are left out.
    """
    columns = min(columns, len(codes))
    codes = codes[: len(codes) // columns * columns]
    images = tokenizer.detokenize(torch.from_numpy(codes.astype(np.int64)))
    shown = codes if tokenizer.num_codebooks == 1 else codes[..., 0]
    countable = tokenizer.codebook_size <= COUNTABLE
    known = np.arange(tokenizer.codebook_size) if countable else np.unique(shown)
    colours = code_colours(tokenizer, known.astype(np.int64))
    size = images[0].size
    grids = [
        Image.fromarray(colours[np.searchsorted(known, grid)]).resize(size, Image.Resampling.NEAREST) for grid in shown
    ]
    starts = range(0, len(images), columns)
    laid_out = [image for start in starts for row in (images, grids) for image in row[start : start + columns]]
    return image_grid(laid_out, columns=columns, gap=3, scale=max(1, 84 // max(size)))


def data_uri(image: Image.Image) -> str:
    """The image as PNG inside a URI, so that a page holds it itself."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
