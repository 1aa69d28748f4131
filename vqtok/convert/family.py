"""What a family of published checkpoints is: how it is known, how its tensors are called here, and what it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

__all__ = ["Family", "Parts", "Published"]


@dataclass(frozen=True, kw_only=True)
class Published:
    """What is known of one published tokenizer.

    Attributes:
        name: what its authors call it.
        rfid: its reconstruction FID and the protocol behind it.
        image_size: pixels a side it was measured at.
    """

    name: str
    rfid: str
    image_size: int = 256


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A checkpoint in the words of this project.

    Attributes:
        tensors: by their names in a `VQTokenizer`.
        network, quantizer: entries of its configuration.
        notes: what the user should know.
    """

    tensors: dict[str, Tensor]
    network: dict[str, Any]
    quantizer: dict[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Family:
    """Checkpoints of one repository.

    Attributes:
        title: what it is called in a sentence.
        source: where its code is.
        paper: where it is described.
        code_license, weights_license: as their authors say.
        may_share: whether the weights may be given to others.
        resample: how it brings images to their size, of `vqtok.data.fitting.RESIZING`.
        image_size: of the published ones, pixels a side.
        recognise: whether names of tensors are those of this family.
        parts: tensors by their names in the checkpoint, and its configuration where there is one -> `Parts`.
        dropped: a regular expression of the tensors that are left out, as training alone has a use for them.
        published: by the number of codes and the downsample factor.
    """

    title: str
    source: str
    paper: str
    code_license: str
    weights_license: str
    may_share: bool
    resample: str
    image_size: int = 256
    recognise: Callable[[frozenset[str]], bool]
    parts: Callable[[dict[str, Tensor], Mapping[str, Any]], Parts]
    dropped: str = r"(?!)"
    published: Mapping[tuple[int, int], Published] = field(default_factory=dict)
