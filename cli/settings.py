"""vqtok settings: every setting there is, from the descriptions that also check them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from vqtok.errors import ConfigurationError, did_you_mean
from vqtok.options import Options, Setting, Types, settings_of, types_of
from vqtok.training import BaselineTrainingConfig, PriorTrainingConfig, TokenizerTrainingConfig
from vqtok_cli.described import capitalized

__all__ = ["settings"]

RUNS: dict[str, type[Options]] = {"train": TokenizerTrainingConfig, "train-prior": PriorTrainingConfig}

TRAINED: list[type[Options]] = [*RUNS.values(), BaselineTrainingConfig]
SECTIONS: dict[str, Types] = {
    name: section for kind in TRAINED for name, field in kind.model_fields.items() if (section := types_of(field))
}
"""`quantizer`, `network`, `likelihood`, `arch` and `model`, and the types that each may have."""

METHODS = {method: section for section, types in SECTIONS.items() for method in types.kinds}
"""The section of each quantizer, network, likelihood, architecture and model."""


@dataclass
class Row:
    """A setting, and the methods for which this is what it is."""

    setting: Setting
    methods: list[str]

    @property
    def default(self) -> str:
        return shown(self.setting.default)


def settings(
    name: Annotated[
        str | None,
        typer.Argument(help=f"{', '.join([*RUNS, *SECTIONS])}, or a method such as ema."),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """List every setting, what it may be and its default.

    Pass a setting to vqtok train or vqtok train-prior with --set NAME=VALUE, or in a YAML file with --config. Without a
    name, lists the names there are.
    """
    if name is None:
        for line in overview():
            typer.echo(line)
        return
    rows = list(rows_of(name))
    if not rows:
        typer.echo(f"{name} has no settings.")
        return
    for line in markdown_table(rows) if markdown else listing(rows):
        typer.echo(line)


def overview() -> Iterator[str]:
    """What can be asked for, and with what else."""
    yield "vqtok settings NAME, where NAME is"
    for name in RUNS:
        yield f"  {name:<12} for the settings of vqtok {name}"
    for name, section in SECTIONS.items():
        yield f"  {name:<12} for all of the following, or one of them: {', '.join(section.kinds)}"


def rows_of(name: str) -> Iterator[Row]:
    """The settings of a run, of one method, or of all methods of a section.

    Raises:
        ConfigurationError: there is nothing of this name.
    """
    if name in RUNS:
        yield from (Row(item, []) for item in settings_of(RUNS[name]))
        if name == "train":  # with --model it has a few others
            known = [item.name for item in settings_of(RUNS[name])]
            extra = [item for item in settings_of(BaselineTrainingConfig) if item.name not in known]
            yield from (Row(item, list(SECTIONS["model"].kinds)) for item in extra)
    elif name in METHODS:
        section = METHODS[name]
        yield from (Row(item, []) for item in settings_of(SECTIONS[section].kinds[name], f"{section}."))
    elif name in SECTIONS:
        yield from rows_of_section(name)
    else:
        known = [*RUNS, *SECTIONS, *METHODS]
        raise ConfigurationError(
            f"there are no settings of {name!r}, only of {', '.join(known)}.{did_you_mean(name, known)}"
        )


def rows_of_section(section: str) -> list[Row]:
    """A row for each setting that is the same in several methods; settings of one name stand together."""
    rows: list[Row] = []
    for method, kind in SECTIONS[section].kinds.items():
        for item in settings_of(kind, f"{section}."):
            same = next((row for row in rows if row.setting == item), None)
            if same:
                same.methods.append(method)
            else:
                rows.append(Row(item, [method]))
    order = list(dict.fromkeys(row.setting.name for row in rows))
    return sorted(rows, key=lambda row: order.index(row.setting.name))


def listing(rows: Sequence[Row]) -> Iterator[str]:
    """Lines for a terminal: `name = default`, then what it is for and what it may be."""
    for row in rows:
        yield f"{row.setting.name} = {row.default}" if not row.setting.required else row.setting.name
        text = f"{capitalized(row.setting.description)}. {capitalized(row.setting.allowed)}."
        for line in textwrap.wrap(text, 76):
            yield f"    {line}"
        if row.methods:
            yield f"    Of {', '.join(row.methods)}."


def markdown_table(rows: Sequence[Row]) -> Iterator[str]:
    """A Markdown table, with a column of methods where there are several."""
    several = any(row.methods for row in rows)
    head = ["setting", *(["of"] if several else []), "default", "may be", "what it does"]
    yield line_of(head)
    yield line_of(["---"] * len(head))
    for row in rows:
        methods = [", ".join(f"`{method}`" for method in row.methods)] if several else []
        default = "" if row.setting.required else f"`{row.default}`"
        yield line_of([f"`{row.setting.name}`", *methods, default, row.setting.allowed, row.setting.description])


def line_of(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def shown(value: object) -> str:
    """A value as it is written in YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)
