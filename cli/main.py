"""The `vqtok` command. The file of a command is imported when it runs or its own help is asked for: help is quick."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module, metadata
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vqtok_cli.mistakes import mistakes_in_one_line
from vqtok_cli.parameters import with_quiet

__all__ = ["COMMANDS", "app", "main"]

COMMANDS = {
    "train": "Train a tokenizer on images.",
    "tokenize": "Encode images as a codes folder.",
    "detokenize": "Decode codes back to images.",
    "bind": "Say which tokenizer made some codes.",
    "train-prior": "Train a prior on codes.",
    "sample": "Sample new images from a prior.",
    "complete": "Complete an image of which a part is known.",
    "evaluate": "Measure how well a tokenizer reconstructs images.",
    "compress": "Compress an image without loss of a pixel.",
    "decompress": "Give back an image that vqtok compress compressed.",
    "inspect": "Describe a tokenizer, prior, baseline, codes or run.",
    "convert": "Turn a published checkpoint into a tokenizer.",
    "push": "Upload a tokenizer, a prior or codes to the Hugging Face Hub.",
    "settings": "List every setting, what it may be and its default.",
    "demo": "Run every step on handwritten digits, in a few minutes.",
}
"""Every command and the first line of its help; `train-prior` is the function `train_prior` in `train_prior.py`."""

STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit statuses
RUN_BARE = ("demo", "evaluate", "sample", "settings")
"""Commands that do something without arguments; the others show their help."""


class Commands(TyperGroup):
    """Knows its commands by name and line alone, and imports the one that is wanted."""

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> tuple[str | None, Any, list[str]]:  # type: ignore[override]  # typer has its Context in a private module
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name else command, rest


def load(name: str) -> Any:
    """The command of this name, as typer makes it from its function."""
    function_name = name.replace("-", "_")
    module = import_module(f"vqtok_cli.{function_name}")
    command = with_quiet(patient(getattr(module, function_name)))
    single = typer.Typer(rich_markup_mode=app.rich_markup_mode, add_completion=False, pretty_exceptions_enable=False)
    single.command(name, epilog=getattr(module, "EPILOG", None), no_args_is_help=name not in RUN_BARE)(command)
    made = typer.main.get_command(single)
    if app.rich_markup_mode:
        prepare_for_rich(made)
    return made


def patient(command: Callable[..., None]) -> Callable[..., None]:
    """The command in a process that waits for a Hub which is busy."""

    @wraps(command)
    def run(**values: Any) -> None:
        from vqtok.hub import be_patient

        be_patient()
        command(**values)

    return run


def prepare_for_rich(command: Any) -> None:
    """Let rich wrap paragraphs, and print `[height, width]` rather than take it for a style; we write no markup."""
    from rich.markup import escape

    paragraphs = [" ".join(paragraph.split()) for paragraph in (command.help or "").split("\n\n")]
    command.help = escape("\n\n".join(paragraphs))
    command.epilog = escape(command.epilog or "")
    for parameter in command.params:
        parameter.help = escape(parameter.help or "")


app = typer.Typer(
    name="vqtok",
    cls=Commands,
    help="Turn images into grids of discrete codes and back.",
    epilog="Run vqtok COMMAND --help for the options of a command.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    rich_markup_mode=None,  # `main` switches rich on where somebody watches
    pretty_exceptions_enable=False,
)
for command_name, line in COMMANDS.items():
    app.command(command_name, help=line)(lambda: None)


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vqtok {metadata.version('vqtok')}")
        raise typer.Exit


@app.callback()
def vqtok(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What comes before the name of a command."""


def main() -> None:
    """Run a command; a mistake of the user is one line on stderr and status 2, of bad images 3; SIGTERM is 143."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal has no letters for ends nothing
    app.rich_markup_mode = "rich" if has_colours() else None
    try:
        with mistakes_in_one_line(), exit_on_sigterm():
            app(prog_name="vqtok")  # also under `python -m`
    except SystemExit as left:
        if left.code in STOPPED:
            from vqtok.threads import end_at_once

            end_at_once(left.code)
        raise


def has_colours() -> bool:
    """Whether help goes to a terminal that shows colours, and nobody said not to."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb" and "NO_COLOR" not in os.environ


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


if __name__ == "__main__":
    main()  # as `accelerate launch -m vqtok_cli.main` and `torchrun -m vqtok_cli.main` start it
