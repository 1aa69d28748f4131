"""Options that several commands have: one name and one sentence each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from vqtok_cli.output import quiet

__all__ = [
    "IMAGES_PER_BATCH",
    "AsJson",
    "Assignments",
    "BatchSize",
    "Codes",
    "CodesPrior",
    "ConfigFile",
    "Dataset",
    "DatasetConfig",
    "Device",
    "ImageColumn",
    "Overwrite",
    "OverwriteRun",
    "PriorRevision",
    "PushToHub",
    "Resume",
    "Seed",
    "Split",
    "TokenizerName",
    "TokenizerRevision",
    "checked_batch_size",
    "with_parameters",
    "with_quiet",
]

DATASETS = (
    "mnist-mini, mnist, cifar10, a dataset on the Hub (org/name, or org/name@revision), a folder of images, or data "
    "files such as parquet"
)
"""What can be trained on, tokenized and measured on; the setting `dataset` says the same."""


def checked_batch_size(batch_size: int | None) -> int | None:
    """Refuse a batch size out of its bounds before any work; None where an option was not given."""
    from vqtok.batches import check_batch_size

    if batch_size is not None:
        check_batch_size(batch_size)
    return batch_size


RUN = "Run"  # the heading of help that these stand under where there are headings

Dataset = Annotated[str, typer.Argument(help=f"Images: {DATASETS}.")]
Codes = Annotated[str, typer.Argument(help="Codes: a codes folder, parquet files, or a dataset on the Hub.")]
TokenizerName = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        help="Tokenizer to use: its folder, a run folder or a Hub id.",
        show_default="the newest finished run in runs/",
    ),
]
TokenizerRevision = Annotated[
    str | None, typer.Option("--revision", help="Branch, tag or commit of a tokenizer on the Hub.")
]
CodesPrior = Annotated[
    str | None,
    typer.Option(
        "--prior",
        help="Prior over the codes: its folder, a run folder or a Hub id.",
        show_default="equally probable codes",
    ),
]
PriorRevision = Annotated[
    str | None, typer.Option("--prior-revision", help="Branch, tag or commit of a prior on the Hub.")
]
DatasetConfig = Annotated[
    str | None, typer.Option("--dataset-config", help="Configuration of the dataset, if it has several.")
]
ImageColumn = Annotated[
    str | None, typer.Option("--image-column", help="Column of the images, if the dataset has several.")
]
Split = Annotated[str | None, typer.Option("--split", help="Split to read.", show_default="every split")]
IMAGES_PER_BATCH = "Images per batch. Affects speed and memory only."
BatchSize = Annotated[int, typer.Option(help=IMAGES_PER_BATCH, callback=checked_batch_size)]
Seed = Annotated[int, typer.Option(help="Random seed.")]
Device = Annotated[
    str | None,
    typer.Option(help="Device to compute on, such as cpu or cuda.", show_default="cuda if available, else cpu"),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on stdout, and everything else on stderr.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what vqtok wrote to --out before.")]
OverwriteRun = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        rich_help_panel=RUN,
        help="Replace the run in --out. The old run is removed before the first step of the new one.",
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", rich_help_panel=RUN, help="Continue the run in --out from its newest checkpoint.")
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", rich_help_panel=RUN, help="Read settings from this YAML file, such as the config.yaml of a run."
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", rich_help_panel=RUN, metavar="<name=value>", help="Set any setting by its full name. May be repeated."
    ),
]
PushToHub = Annotated[
    str | None,
    typer.Option(
        "--push-to-hub",
        rich_help_panel=RUN,
        metavar="<owner/name>",
        help="Upload the finished model to this Hub repository.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result and errors.")]


def with_parameters(
    wrapper: Callable[..., None],
    command: Callable[..., None],
    *,
    before: Sequence[inspect.Parameter] = (),
    after: Sequence[inspect.Parameter] = (),
    instead: Mapping[str, Sequence[inspect.Parameter]] | None = None,
) -> Callable[..., None]:
    """The wrapper of a command as typer sees it: the command's own parameters between these, some with others instead.

    Args:
        instead: what stands where the command has a parameter of this name.
    """
    own = inspect.signature(command, eval_str=True)
    kept = [each for name, parameter in own.parameters.items() for each in (instead or {}).get(name, [parameter])]
    # by name alone, since an argument without a default may follow an option with one
    order = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*before, *kept, *after)]
    shown = wraps(command)(wrapper)
    shown.__signature__ = own.replace(parameters=order)  # type: ignore[attr-defined]
    return shown


def with_quiet(command: Callable[..., None]) -> Callable[..., None]:
    """The command with `--quiet`, and without empty values."""

    def run(*, be_quiet: bool, **values: Any) -> None:
        refuse_empty(values)
        with quiet(be_quiet):
            command(**values)

    parameter = inspect.Parameter("be_quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Quiet)
    return with_parameters(run, command, after=[parameter])


def refuse_empty(values: Mapping[str, object]) -> None:
    """Refuse an empty text, which names nothing and is no value of a setting; a shell makes it of an unset variable.

    Raises:
        ConfigurationError: names the option or argument.
    """
    from vqtok.errors import ConfigurationError

    for name, value in values.items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise ConfigurationError(f"{name.rstrip('_')} is empty: give a value, or leave it out")
