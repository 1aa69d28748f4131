"""What the options of every prior have."""

from __future__ import annotations

from pydantic import Field

from vqtok.options import Options

__all__ = ["PriorOptions"]


class PriorOptions(Options):
    """The name of an architecture, as `type`, and what all have."""

    section = "arch"

    type: str
    dropout: float = Field(0.0, ge=0, lt=1, description="share dropped in training")
