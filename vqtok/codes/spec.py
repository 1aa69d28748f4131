"""What codes say about themselves: which tokenizer made their grids, and what a grid looks like.

The whole of it is a JSON object, in `info.description` of a dataset and in the sidecar `codes.json` of a folder. What
identifies the tokenizer is also the `id` of the column's feature, which survives more; see `binding.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
from pydantic import PositiveInt

from vqtok.errors import ConfigurationError, DataError, MismatchError, shortened
from vqtok.schema import checked
from vqtok.text import tokenizer_text

if TYPE_CHECKING:
    from vqtok.tokenizer import VQTokenizer

__all__ = ["COLUMN", "HELD_OUT_COLUMN", "IMAGE_ID", "SIDECAR", "SPLIT_NAME", "CodesSpec", "Grids"]

COLUMN = "codes"
HELD_OUT_COLUMN = "held_out"
"""Whether the tokenizer held the image out in its training."""

IMAGE_ID = "image_id"
"""The number of the image in its split, which its views share."""

SIDECAR = "codes.json"
FORMAT = "vqtok-codes"
VERSION = 1

SPLIT_NAME = r"\w+(\.\w+)*"  # what `datasets` takes for the name of a split

Grids = datasets.Array2D | datasets.Array3D
"""The features that a column of codes may have."""


@dataclass(frozen=True, kw_only=True)
class CodesSpec:
    """How to read the grids of a code set and which tokenizer they belong to.

    Args:
        grid: (h, w) of the latent grid.
        codebook_size: K, codes per codebook.
        num_codebooks: Q, codebooks per position; a grid is (h, w), or (h, w, Q) where Q > 1.
        fingerprint: sha256 of the tokenizer that made the codes.
        repository: where that tokenizer came from, a Hub id or a folder, or None where it was never saved.
        revision: the commit of that repository, or None.
        preprocessing: how images became pixels: size, channels, resampling filter; views and the background of
            transparent images where these are not the tokenizer's own.
        vqtok_version: the version that wrote the codes.
    """

    grid: tuple[PositiveInt, PositiveInt]
    codebook_size: PositiveInt
    num_codebooks: PositiveInt
    fingerprint: str
    repository: str | None = None
    revision: str | None = None
    preprocessing: dict[str, Any] = field(default_factory=dict)
    vqtok_version: str = ""

    @classmethod
    def from_tokenizer(cls, tokenizer: VQTokenizer) -> CodesSpec:
        """Describe the codes that `tokenizer` makes.

        Raises:
            ConfigurationError: it is no tokenizer, but perhaps the name of one.
        """
        _check_loaded(tokenizer)
        height, width = tokenizer.grid
        return cls(
            grid=(int(height), int(width)),
            codebook_size=int(tokenizer.codebook_size),
            num_codebooks=int(tokenizer.num_codebooks),
            fingerprint=tokenizer.fingerprint,
            repository=tokenizer.repository,
            revision=tokenizer.revision,
            preprocessing=tokenizer.config.preprocessing,
            vqtok_version=_installed_version(),
        )

    @classmethod
    def from_json(cls, text: str, *, name: str, **known: Any) -> CodesSpec:
        """Read a spec.

        Args:
            text: what `to_json` gives.
            name: what the error calls the place it was found.
            known: entries that are known from elsewhere.

        Raises:
            DataError: the text is no codes spec, or one of a newer format.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            raise DataError(f"{name} does not describe codes of vqtok: make codes with `vqtok tokenize`") from None
        return cls.from_dict({**values, **known} if isinstance(values, dict) else values, name=name)

    @classmethod
    def from_dict(cls, values: Any, *, name: str) -> CodesSpec:
        """Build a spec from the object that `to_dict` gives; keys it does not know are ignored.

        Raises:
            DataError: the object is no codes spec, or one of a newer format.
        """
        if not isinstance(values, Mapping) or values.get("format") != FORMAT:
            raise DataError(f"{name} does not describe codes of vqtok: make codes with `vqtok tokenize`")
        if values.get("version") != VERSION:
            raise DataError(f"{name} has codes format {values.get('version')}, not {VERSION}: update vqtok")
        return checked(cls, values, name=f"the description of the codes in {name}", error=DataError)

    def to_dict(self) -> dict[str, Any]:
        """The spec as what JSON knows: strings, numbers, lists, objects."""
        return {"format": FORMAT, "version": VERSION, **asdict(self), "grid": list(self.grid)}

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict())

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one grid: (h, w), or (h, w, Q) where Q > 1."""
        return self.grid if self.num_codebooks == 1 else (*self.grid, self.num_codebooks)

    @property
    def most_rows(self) -> int:
        """Grids that fit into one column of a record batch: Arrow counts their codes in 31 bits."""
        return max(1, (2**31 - 1) // math.prod(self.shape))

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint16, or uint32 where K is past 65,536, or uint64 past 2^32."""
        return np.min_scalar_type(max(self.codebook_size - 1, 2**16 - 1))

    @classmethod
    def from_feature(cls, feature: object, *, name: str) -> CodesSpec | None:
        """What the feature of a column of codes says by its `id`; None where it says nothing.

        The repository and the preprocessing are not in it.

        Raises:
            DataError: the `id` is one of ours, but damaged or of a newer format.
        """
        text = getattr(feature, "id", None)
        if not isinstance(feature, Grids) or not isinstance(text, str) or FORMAT not in text:
            return None
        height, width, *books = feature.shape
        spec = cls.from_json(text, name=name, grid=[height, width], num_codebooks=books[0] if books else 1)
        if not spec.fits(feature):
            raise DataError(f"{name} is damaged: its codes are {feature}, and should be {spec.feature}")
        return spec

    @property
    def identity(self) -> tuple[str, tuple[int, ...], int]:
        """What two sets of codes of one tokenizer have in common: fingerprint, shape of a grid, K."""
        return self.fingerprint, self.shape, self.codebook_size

    @property
    def feature(self) -> datasets.Array2D | datasets.Array3D:
        """The feature of the column `codes`.

        Its `id` holds the fingerprint and K, and nothing that may differ between codes of one tokenizer, such as where
        it was loaded from: `datasets` only joins columns of one `id`.
        """
        kind = datasets.Array2D if self.num_codebooks == 1 else datasets.Array3D
        told = {"codebook_size": self.codebook_size, "fingerprint": self.fingerprint}
        text = json.dumps({"format": FORMAT, "version": VERSION, **told})
        return kind(shape=self.shape, dtype=self.dtype.name, id=text)

    def fits(self, feature: object) -> bool:
        """Whether a column holds grids of this shape and type, whichever tokenizer it names."""
        return (
            isinstance(feature, Grids)
            and tuple(feature.shape) == self.shape
            and feature.dtype == self.dtype.name
            and type(feature) is type(self.feature)
        )

    def check(self, tokenizer: VQTokenizer) -> None:
        """Refuse a tokenizer that did not make these codes.

        Raises:
            ConfigurationError: it is no tokenizer, but perhaps the name of one.
            MismatchError: the fingerprints differ.
        """
        _check_loaded(tokenizer)
        fingerprint = tokenizer.fingerprint
        if fingerprint != self.fingerprint:
            made_by = tokenizer_text(self.fingerprint, self.repository, self.revision)
            given = tokenizer_text(fingerprint, tokenizer.repository, tokenizer.revision)
            raise MismatchError(
                f"these codes were made by tokenizer {made_by}, not by {given}: give the tokenizer that "
                "made them, or tokenize the images again with this one"
            )


def _check_loaded(tokenizer: object) -> None:
    if not hasattr(tokenizer, "fingerprint"):
        raise ConfigurationError(
            f"the tokenizer must be a VQTokenizer, got {shortened(tokenizer)}; load it with VQTokenizer.from_pretrained"
        )


def _installed_version() -> str:
    try:
        return version("vqtok")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "unknown"
