"""What a family of published checkpoints is: how it is known, how its tensors are called here, and what it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vqtok.hub import Provenance

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
        recognise: whether tensors, by their names in the checkpoint, are those of this family.
        parts: tensors by their names in the checkpoint, and its configuration where there is one -> `Parts`.
        dropped: a regular expression of the tensors that no code and no image needs.
        published: by the number of codes, their dimension and the downsample factor.
    """

    title: str
    source: str
    paper: str
    code_license: str
    weights_license: str
    may_share: bool
    resample: str
    image_size: int = 256
    recognise: Callable[[Mapping[str, Tensor]], bool]
    parts: Callable[[dict[str, Tensor], Mapping[str, Any]], Parts]
    dropped: str = r"(?!)"
    published: Mapping[tuple[int, int, int], Published] = field(default_factory=dict)

    def provenance(self, checkpoint: str, published: Published | None, notes: Sequence[str]) -> Provenance:
        """What a tokenizer of this family keeps of its origin.

        Args:
            checkpoint: the name of the file, folder or repository that it was converted from.
            published: the published one of its shape.
            notes: what is to be known of the conversion.
        """
        return Provenance(
            program=self.title,
            checkpoint=checkpoint,
            source=self.source,
            paper=self.paper,
            code_license=self.code_license,
            weights_license=self.weights_license,
            may_share=self.may_share,
            published=f"{published.name}, reconstruction FID {published.rfid}" if published else None,
            notes=list(notes),
        )
