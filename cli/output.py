"""How every command talks: what it resolved before it works, where the result is and what to run next after it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from contextvars import ContextVar

import typer

__all__ = ["done", "is_first", "mention", "note", "quiet", "resolved", "say"]

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


def is_first() -> bool:
    """Whether this is the only process, or the first of those that torchrun or accelerate launch started."""
    return os.environ.get("RANK", "0") == "0"


def say(line: str, *, err: bool = False) -> None:
    """Print a line that may hold names and values from files of others; of several processes the first one prints."""
    from vqtok.text import printable

    if is_first():
        typer.echo(printable(line), err=err)


def mention(line: str, *, err: bool = False) -> None:
    """Print a line that --quiet leaves out."""
    if not QUIET.get():
        say(line, err=err)


def resolved(command: str, values: Mapping[str, object], *, err: bool = False) -> None:
    """Print the settings a command will work with, one aligned line each; unset ones are left out.

    A dictionary is a group: its name is a heading, and its settings stand below. Here and below `err` prints on stderr,
    for commands whose stdout is for programs.
    """
    groups = values.values() if all(isinstance(value, Mapping) for value in values.values()) else [values]
    width = max((len(name) for group in groups if isinstance(group, Mapping) for name in group), default=0)
    mention(f"vqtok {command}", err=err)
    for name, value in values.items():
        if isinstance(value, Mapping):
            mention(f"  {name}", err=err)
            show_settings(value, width, indent=4, err=err)
        else:
            show_settings({name: value}, width, indent=2, err=err)


def show_settings(values: Mapping[str, object], width: int, *, indent: int, err: bool) -> None:
    for name, value in values.items():
        if value is not None:
            mention(f"{'':<{indent}}{name:<{width}}  {plain(value)}", err=err)


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


def note(message: str, *, err: bool = False) -> None:
    """Print something the user should know but need not act on."""
    mention(f"note: {message}", err=err)


def done(message: str, *, warnings: Sequence[str] = (), next: Sequence[object] = (), err: bool = False) -> None:
    """Print where the result is, what is wrong with it and, where there is one, the command that goes on from it.

    The command is given word by word, for a shell to take as they are, and some of the words may come from others.
    """
    say(message, err=err)
    for warning in warnings:
        say(f"warning: {warning}", err=err)
    if next:
        mention(f"next: {shlex.join(map(str, next))}", err=err)
