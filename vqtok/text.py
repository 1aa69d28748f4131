"""Words that messages, notes, cards and the command line are made of."""

from __future__ import annotations

__all__ = ["counted", "printable", "tokenizer_text"]


def counted(number: int, thing: str) -> str:
    """How many there are of something: 1 image, 1,200 images."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """Text with what would move the cursor, change colours or reverse the order of letters written as escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def tokenizer_text(fingerprint: str, repository: str | None = None, revision: str | None = None) -> str:
    """A tokenizer as people are told of it, as far as it is known: 0123456789ab (org/name at 89abcdef)."""
    where = f" ({repository}{f' at {revision}' if revision else ''})" if repository else ""
    return f"{fingerprint[:12]}{where}"
