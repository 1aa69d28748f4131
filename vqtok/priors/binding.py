"""Which tokenizer's codes a prior models, and by which names its classes go.

A prior is nothing without the tokenizer whose codes it was trained on, so this travels in `config.json` under the key
`vqtok`, and every program that samples compares the fingerprints before it decodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np
import torch
from pydantic import ConfigDict, PositiveInt
from torch import Tensor

from vqtok.errors import CheckpointError, ConfigurationError, DataError, MismatchError
from vqtok.schema import checked
from vqtok.text import tokenizer_text

__all__ = ["Labels", "PriorBinding"]

Labels: TypeAlias = int | str | Sequence[int | str]  # classes by name or number


@dataclass(frozen=True, kw_only=True)
class PriorBinding:
    """The shape of the code grids a prior models, their tokenizer and their classes.

    Args:
        fingerprint: of the tokenizer whose codes these are.
        grid: height and width (h, w) of a grid.
        codebook_size: codes per codebook, K.
        num_codebooks: codes per position, Q.
        label_names: names of the classes in the order of their numbers; None for a prior without classes.
        tokenizer: where that tokenizer was found, a folder or a Hub repository.
        revision: the commit of that repository; None for a folder.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    fingerprint: str
    grid: tuple[PositiveInt, PositiveInt]
    codebook_size: PositiveInt
    num_codebooks: PositiveInt = 1
    label_names: tuple[str, ...] | None = None
    tokenizer: str | None = None
    revision: str | None = None

    @classmethod
    def from_config(cls, config: Any) -> PriorBinding:
        """Read the binding out of a model's configuration.

        Raises:
            CheckpointError: the configuration carries no binding, or one that is not whole.
        """
        found = getattr(config, "vqtok", None)
        if not isinstance(found, Mapping):
            raise CheckpointError(
                f"the configuration of type {config.model_type!r} has no entry 'vqtok': it is not a prior of this "
                "package, or it was saved by another one"
            )
        return checked(cls, found, name="the entry 'vqtok' of the prior's config.json")

    def to_dict(self) -> dict[str, Any]:
        """What `from_config` reads, made of JSON types only."""
        names = None if self.label_names is None else list(self.label_names)
        return asdict(self) | {"grid": list(self.grid), "label_names": names}

    @property
    def codes_per_image(self) -> int:
        """L = h * w * Q, the length of the sequence a prior reads."""
        return self.grid[0] * self.grid[1] * self.num_codebooks

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for a prior without them."""
        return len(self.label_names or ())

    @property
    def null_class(self) -> int:
        """The class number that stands for "no class", one past the last: for guidance and sampling without a class."""
        return self.num_classes

    def code_shape(self, count: int) -> tuple[int, ...]:
        """Shape of `count` images' codes: (count, h, w), or (count, h, w, Q) where Q > 1."""
        return (count, *self.grid) if self.num_codebooks == 1 else (count, *self.grid, self.num_codebooks)

    def flatten(self, codes: Tensor) -> Tensor:
        """Codes (B, h, w[, Q]) in the order in which a prior reads them: int64 (B, L).

        Raises:
            DataError: another shape, or codes outside [0, K).
        """
        if tuple(codes.shape) != self.code_shape(codes.shape[0] if codes.ndim else 0):
            raise DataError(f"codes must have shape {('B', *self.code_shape(0)[1:])}, got {tuple(codes.shape)}")
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codebook_size:
            raise DataError(
                f"codes must lie in [0, {self.codebook_size}), got {int(codes.min())} to {int(codes.max())}"
            )
        return codes.reshape(codes.shape[0], -1).long()

    def classes(self, labels: Labels | Tensor | None, count: int) -> Tensor:
        """One class number for each of `count` images: int64 (count,); the null class where `labels` is None.

        Labels are names or numbers, dealt in turn, so that one label serves all images and a list of ten makes rows of
        ten.

        Raises:
            ConfigurationError: a label that no class has, no label in the list, or labels for a prior without classes.
        """
        if labels is None:
            return torch.full((count,), self.null_class)
        if not self.num_classes:
            raise ConfigurationError("this prior was trained without classes: leave the labels out")
        listed = labels.tolist() if isinstance(labels, Tensor) else labels
        given = [self.label_number(label) for label in np.asarray(listed, dtype=object).flat]
        if not given:
            raise ConfigurationError("the list of labels is empty: name at least one, or leave the labels out")
        return torch.tensor(given).repeat(-(-count // len(given)))[:count]

    def label_number(self, label: str | int) -> int:
        """Number of the class that a user names by its name or its number, which may be text as well.

        Raises:
            ConfigurationError: no class goes by that name or number, or the prior has none.
        """
        names = self.label_names or ()
        if not isinstance(label, str):
            if isinstance(label, Integral) and not isinstance(label, bool) and 0 <= label < len(names):
                return int(label)
            raise ConfigurationError(
                f"a label must be a name or a whole number from 0 to {len(names) - 1}, got {label!r}; the classes are "
                f"{', '.join(self._names_shown())}"
            )
        if label in names:
            return names.index(label)
        if label.isdecimal() and int(label) < len(names):
            return int(label)
        if not names:
            raise ConfigurationError(f"this prior was trained without classes: leave out the label {label!r}")
        raise ConfigurationError(f"no class {label!r}: choose one of {', '.join(self._names_shown())}")

    def check_tokenizer(self, fingerprint: str) -> None:
        """Refuse a tokenizer whose codes mean something else.

        Raises:
            MismatchError: naming both fingerprints.
        """
        if fingerprint != self.fingerprint:
            own = tokenizer_text(self.fingerprint, self.tokenizer, self.revision)
            raise MismatchError(
                f"the prior models codes of tokenizer {own}, not of the given one, {fingerprint[:12]}: "
                "take the tokenizer that made the prior's codes"
            )

    def _names_shown(self) -> list[str]:
        names = list(self.label_names or ())
        return names if len(names) <= 12 else [*names[:10], "...", names[-1]]
