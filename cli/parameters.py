"""Options that several commands have: one name and one sentence each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from vqtok_cli.output import quiet

__all__ = [
    "Assignments",
    "BatchSize",
    "ConfigFile",
    "Device",
    "Overwrite",
    "PushToHub",
    "Resume",
    "with_parameters",
    "with_quiet",
]

BatchSize = Annotated[int, typer.Option(help="Images per batch. Changes speed and memory, not the result.")]
Device = Annotated[
    str | None, typer.Option(help="Device to run on, such as cpu or cuda. By default a GPU where there is one.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run wrote to --out.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out from its newest checkpoint.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML file of settings, such as the config.yaml of another run.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="<name=value>", help="Set any setting by its full name. Repeatable."),
]
PushToHub = Annotated[
    str | None,
    typer.Option("--push-to-hub", metavar="<owner/name>", help="Upload the finished model to this Hub repository."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result and errors.")]


def with_parameters(
    wrapper: Callable[..., None],
    command: Callable[..., None],
    *,
    before: Sequence[inspect.Parameter] = (),
    after: Sequence[inspect.Parameter] = (),
    without: str = "",
) -> Callable[..., None]:
    """The wrapper of a command as typer sees it: the command's own parameters but `without`, between these."""
    own = inspect.signature(command, eval_str=True)
    kept = [parameter for name, parameter in own.parameters.items() if name != without]
    # by name alone, since an argument without a default may follow an option with one
    order = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*before, *kept, *after)]
    shown = wraps(command)(wrapper)
    shown.__signature__ = own.replace(parameters=order)  # type: ignore[attr-defined]
    return shown


def with_quiet(command: Callable[..., None]) -> Callable[..., None]:
    """The command with `--quiet`."""

    def run(*, be_quiet: bool, **values: Any) -> None:
        with quiet(be_quiet):
            command(**values)

    parameter = inspect.Parameter("be_quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Quiet)
    return with_parameters(run, command, after=[parameter])
