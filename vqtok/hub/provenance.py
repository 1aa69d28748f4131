"""Where weights come from that others published, as config.json keeps it: whose they are, and under which terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from vqtok.schema import checked

__all__ = ["Provenance", "provenance_of", "sharing_warning"]

PROVENANCE = "provenance"
LONGEST, MOST_NOTES = 2000, 50  # characters of a text, which may come from a stranger and is shown whole, and notes

Text = Annotated[str, Field(max_length=LONGEST)]


class Provenance(BaseModel):
    """Where a converted tokenizer comes from; one that is trained further keeps it.

    Attributes:
        program: what writes such checkpoints.
        checkpoint: the name of the file, folder or repository.
        source: address of its code.
        paper: where it is described.
        code_license, weights_license: as their authors name them.
        may_share: whether the weights may be given to others.
        published: the published tokenizer of this shape, with its reconstruction FID and the protocol of that.
        notes: what is to be known of the conversion.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    program: Text
    checkpoint: Text
    source: Text
    paper: Text
    code_license: Text
    weights_license: Text
    may_share: bool
    published: Text | None = None
    notes: list[Text] = Field([], max_length=MOST_NOTES)

    @property
    def rows(self) -> tuple[tuple[str, str], ...]:
        """Names and values, to be read by people."""
        published = [("published of this shape", self.published)] if self.published else []
        return (
            ("converted from", f"{self.checkpoint}, a checkpoint of {self.program} ({self.source})"),
            *published,
            ("described in", self.paper),
            ("license of the code", self.code_license),
            ("license of the weights", self.terms),
            *(("note", note) for note in self.notes),
        )

    @property
    def terms(self) -> str:
        """Under which terms the weights are."""
        return self.weights_license if self.may_share else f"{self.weights_license}: they may not be given to others"


def provenance_of(config: Mapping[str, Any], *, name: str) -> Provenance | None:
    """What a config.json says of it, if anything.

    Args:
        config: the object in it.
        name: what an error calls it.

    Raises:
        CheckpointError: it is damaged.
    """
    given = config.get(PROVENANCE)
    if given is None:
        return None
    return checked(Provenance, given, name=f"the entry {PROVENANCE!r} of {name}")


def sharing_warning(config: Mapping[str, Any]) -> str | None:
    """What to tell whoever is about to publish a model with this config.json, where its terms forbid that."""
    found = provenance_of(config, name="config.json")
    if found is None or found.may_share:
        return None
    return f"the weights come from {found.program} and are under the {found.terms}"
