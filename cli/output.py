"""How every command talks: what it resolved before it works, where the result is and what to run next after it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from contextvars import ContextVar

import typer

__all__ = ["counted", "done", "note", "quiet", "resolved", "say"]

QUIET = ContextVar("QUIET", default=False)


@contextmanager
def quiet(wanted: bool) -> Iterator[None]:
    """Print only results inside, where that is wanted; bars and log lines on stderr go as well, errors are raised."""
    if not wanted:
        yield
        return
    token = QUIET.set(True)
    try:
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
            yield
    finally:
        QUIET.reset(token)


def say(line: str) -> None:
    """Print a line that --quiet leaves out."""
    if not QUIET.get():
        typer.echo(line)


def resolved(command: str, values: Mapping[str, object]) -> None:
    """Print the settings a command will work with, one aligned line each; unset ones are left out.

    A dictionary is a group: its name as a heading, its settings below.
    """
    groups = values.values() if all(isinstance(value, Mapping) for value in values.values()) else [values]
    width = max((len(name) for group in groups if isinstance(group, Mapping) for name in group), default=0)
    say(f"vqtok {command}")
    for name, value in values.items():
        if isinstance(value, Mapping):
            say(f"  {name}")
            show_settings(value, width, indent=4)
        else:
            show_settings({name: value}, width, indent=2)


def show_settings(values: Mapping[str, object], width: int, *, indent: int) -> None:
    for name, value in values.items():
        if value is not None:
            say(f"{'':<{indent}}{name:<{width}}  {plain(value)}")


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
    typer.echo(message)
    if next:
        say(f"next: {next}")
