"""Words that messages, notes, cards and the command line are made of."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, thing: str) -> str:
    """How many there are of something: 1 image, 1,200 images."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
