"""The `vqtok` command. No torch is imported until a command runs, so that help answers at once."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from vqtok_cli.demo import demo
from vqtok_cli.detokenize import detokenize
from vqtok_cli.evaluate import evaluate
from vqtok_cli.inspect import inspect
from vqtok_cli.output import say
from vqtok_cli.push import push
from vqtok_cli.sample import sample
from vqtok_cli.tokenize import tokenize
from vqtok_cli.train import train
from vqtok_cli.train_prior import train_prior

__all__ = ["app", "main"]

app = typer.Typer(
    name="vqtok",
    help="Turn images into grids of discrete codes and back.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # which would take [default: ...] for markup
    pretty_exceptions_enable=False,
)
for command in (train, tokenize, detokenize, train_prior, sample, evaluate, inspect, push, demo):
    app.command(command.__name__.replace("_", "-"))(command)


def main() -> None:
    """Run a command; a mistake of the user is one line on stderr and exit status 2, SIGTERM is exit status 143."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        with exit_on_sigterm():
            app()
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        say(f"vqtok: error: {message}", err=True)
        sys.exit(2)


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end a command as an exception does, so that unfinished files go; training has a way of its own."""

    def leave(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # `timeout` and others send it twice, which would cut this short
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def user_message(error: Exception) -> str | None:
    """One line for what a user can mend, None for a bug of ours."""
    from huggingface_hub.errors import StrictDataclassError

    from vqtok.errors import VqtokError

    if isinstance(error, VqtokError | StrictDataclassError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}: free some space or choose a folder that can be written"
    return None
