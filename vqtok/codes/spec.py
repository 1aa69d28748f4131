"""What a codes folder says about itself: which tokenizer made its grids, and what a grid looks like.

The same JSON object rides in `info.description` of the dataset, where it survives `map`, `select` and `concatenate`,
and in the sidecar `codes.json` of the folder, where it survives a push to the Hub.
"""

from __future__ import annotations

import json
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

__all__ = ["COLUMN", "SIDECAR", "CodesSpec"]

COLUMN = "codes"
SIDECAR = "codes.json"
FORMAT = "vqtok-codes"
VERSION = 1


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
        preprocessing: how images became pixels: size, channels, resampling filter.
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
    def from_json(cls, text: str, *, name: str) -> CodesSpec:
        """Read a spec; `name` is what the error calls the place it was found.

        Raises:
            DataError: the text is no codes spec, or one of a newer format.
        """
        try:
            return cls.from_dict(json.loads(text), name=name)
        except (ValueError, RecursionError):
            raise DataError(f"{name} does not describe codes of vqtok: make codes with `vqtok tokenize`") from None

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
    def dtype(self) -> np.dtype[Any]:
        """uint16, or uint32 where K is past 65,536, or uint64 past 2^32."""
        return np.min_scalar_type(max(self.codebook_size - 1, 2**16 - 1))

    @property
    def feature(self) -> datasets.Array2D | datasets.Array3D:
        """The feature of the column `codes`."""
        kind = datasets.Array2D if self.num_codebooks == 1 else datasets.Array3D
        return kind(shape=self.shape, dtype=self.dtype.name)

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
