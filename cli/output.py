"""How every command talks: what it resolved before it works, where the result is and what to run next after it."""

from __future__ import annotations

from collections.abc import Mapping

import typer

__all__ = ["counted", "done", "note", "printable", "resolved", "say"]


def resolved(command: str, values: Mapping[str, object]) -> None:
    """Print the settings a command will work with, one aligned line each; unset ones are left out."""
    shown = {name: value for name, value in values.items() if value is not None}
    width = max((len(name) for name in shown), default=0)
    say(f"vqtok {command}")
    for name, value in shown.items():
        say(f"  {name:<{width}}  {plain(value)}")


def plain(value: object) -> str:
    """A value as a person would write it: entries of a dictionary as `key value`, items of a list with commas."""
    if isinstance(value, Mapping):
        entries = (
            (key, f"({plain(entry)})" if isinstance(entry, Mapping) else plain(entry)) for key, entry in value.items()
        )
        return ", ".join(f"{key} {entry}" for key, entry in entries)
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    return str(value)


def counted(number: int, thing: str) -> str:
    """How many there are of something: 1 image, 1,200 images."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def note(message: str) -> None:
    """Print something the user should know but need not act on."""
    say(f"note: {message}")


def done(message: str, *, next: str | None = None) -> None:
    """Print where the result is and, where there is one, the command that goes on from it."""
    say(message)
    if next:
        say(f"next: {next}")


def say(line: str, *, err: bool = False) -> None:
    """Print a line that may hold names and values from files of others."""
    typer.echo(printable(line), err=err)


def printable(text: str) -> str:
    """Text with what would move the cursor, change colours or reverse the order of letters written as escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
