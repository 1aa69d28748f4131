"""Options of a command, made from the descriptions of settings so that nothing is said twice."""

from __future__ import annotations

import csv
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer
import yaml

from vqtok.assignments import read_yaml_text
from vqtok.errors import ConfigurationError
from vqtok.options import Options, Setting, setting, settings_of, types_of
from vqtok.training.config import LoopConfig
from vqtok_cli.parameters import with_parameters

__all__ = ["capitalized", "default_of", "grouped", "options_from", "sentence"]

METAVARS = {int: "<int>", float: "<float>", str: "<str>", list: "<int|list>", tuple: "<name,...>"}
LEADING_ZEROS = re.compile(r"^0+(?=\d)")  # which make a number octal in YAML
NAMES = " Names are separated by commas; one that holds a comma is put in double quotes."

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def options_from(
    kind: type[Options], panels: Mapping[str, Sequence[str]], *, defaults: Mapping[str, str] | None = None
) -> Decorator:
    """Give a command an option for each of these settings: `--codebook-size` for `quantizer.codebook_size`.

    They stand where the command has its parameter `given`, which gets what was typed, by the names of the settings.
    Defaults are shown but not in it, so that a configuration file stays above them. Values are checked with the rest of
    the settings, not here.

    Args:
        kind: the configuration of a run, or the options of what the command does.
        panels: names of settings, by the heading that they stand under.
        defaults: what to show as the default of a setting that the command fills in.
    """
    named = {name.rpartition(".")[2]: (name, panel) for panel, names in panels.items() for name in names}
    made = [parameter(kind, name, panel, (defaults or {}).get(name)) for name, panel in named.values()]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(*, context: typer.Context, **values: Any) -> None:
            texts = {name: values.pop(option) for option, (name, _) in named.items() if was_typed(context, option)}
            own = {option: value for option, value in values.items() if option not in named}
            command(given={name: read(setting(kind, name), text) for name, text in texts.items()}, **own)

        with_context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        return with_parameters(run, command, before=[with_context], instead={"given": made})

    return decorate


def was_typed(context: typer.Context, option: str) -> bool:
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def read(item: Setting, given: Any) -> Any:
    """What was typed as a value of this setting: names between commas, a text as it is, else YAML as in files."""
    if item.type in (str, bool) or is_repeated(item):
        return given
    if item.type is tuple:
        return names_in(given, item.name)
    try:
        return read_yaml_text(LEADING_ZEROS.sub("", given))
    except yaml.YAMLError:
        return given  # the check of the configuration says what is wrong with it


def is_repeated(item: Setting) -> bool:
    """Whether the option of a setting is given once for each item of its list."""
    return item.type is list and bool(item.choices)


def names_in(text: str, name: str) -> list[str]:
    """Names between commas; a name in double quotes may hold commas itself.

    Args:
        name: of the setting, for the error.

    Raises:
        ConfigurationError: a line break outside of quotes.
    """
    try:
        return next(csv.reader([text], skipinitialspace=True), [])
    except csv.Error as error:
        raise ConfigurationError(f"{name} cannot be told apart ({error}): put names in double quotes") from None


def parameter(kind: type[Options], name: str, panel: str, default: str | None) -> inspect.Parameter:
    """The parameter that typer makes an option of."""
    item = setting(kind, name)
    option = name.rpartition(".")[2]
    choices = list(item.choices)
    declared = typer.Option(
        f"--{option.replace('_', '-')}",
        help=sentence(kind, name),
        metavar=None if item.type is bool else f"<{'|'.join(choices)}>" if choices else METAVARS[item.type],
        autocompletion=(lambda: choices) if choices else None,
        rich_help_panel=panel,
    )
    flag, repeated = item.type is bool, is_repeated(item)
    return inspect.Parameter(
        option,
        inspect.Parameter.KEYWORD_ONLY,
        default=item.default if flag else None if repeated else default or default_of(kind, name),
        annotation=Annotated[bool if flag else list[str] | None if repeated else str | None, declared],
    )


def sentence(kind: type[Options], name: str) -> str:
    """What a setting is for, and the methods that have it where not all do."""
    item = setting(kind, name)
    types, having = types_of_section(kind, name), defaults_by_type(kind, name)
    only = f" For {', '.join(having)}." if len(having) < len(types) else ""
    names = NAMES if item.type is tuple else " May be repeated." if is_repeated(item) else ""
    return f"{capitalized(item.description)}.{names}{only}"


def capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def default_of(kind: type[Options], name: str) -> str | None:
    """The default of a setting as text, followed by those of other methods that differ: `256 (pixelcnn: 128)`."""
    item = setting(kind, name)
    if item.default_text:
        return f"({item.default_text})" if item.default is None else item.default_text
    default = item.default
    others = [f"{method}: {value}" for method, value in defaults_by_type(kind, name).items() if value != default]
    if default is None:
        return None
    return f"{default} ({', '.join(others)})" if others else str(default)


def types_of_section(kind: type[Options], name: str) -> Mapping[str, type[Options]]:
    """The options of each type that the section of a setting may have; none for a setting outside of sections."""
    head, dot, _ = name.partition(".")
    section = types_of(kind.model_fields[head]) if dot else None
    return section.kinds if section else {}


def defaults_by_type(kind: type[Options], name: str) -> dict[str, Any]:
    """The default of a setting for each type of its section that has it."""
    last = name.partition(".")[2]
    types = types_of_section(kind, name).items()
    return {method: setting(options, last).default for method, options in types if last in options.model_fields}


def grouped(config: LoopConfig, facts: Mapping[str, object], panels: Mapping[str, Sequence[str]]) -> dict[str, object]:
    """What a run is trained on and with, for `resolved`: settings with an option of their own, and the others that are
    not at their default.

    Args:
        config: the resolved configuration.
        facts: what else to say of the data, by name.
        panels: those of `options_from`.
    """
    offered = [name for names in panels.values() for name in names]
    data: dict[str, object] = {}
    sections: dict[str, object] = {}
    training: dict[str, object] = {}
    order = {name: place for place, name in enumerate(offered)}
    for item in sorted(settings_of(type(config)), key=lambda item: order.get(item.name, len(order))):
        value = getattr(config, item.name)
        if types_of(type(config).model_fields[item.name]) and type(value).model_fields.keys() == {"type"}:
            training[item.name] = value.type
        elif types_of(type(config).model_fields[item.name]):
            entries = changed(value, offered, f"{item.name}.")
            sections[f"{item.name} {value.type}"] = entries or {"": "all settings at their default"}
        elif value != item.default or (item.name in offered and value != []):
            (training if item.name in LoopConfig.model_fields else data)[item.name] = value
    return {"data": data | dict(facts), **sections, "training": training}


def changed(options: Options, offered: Sequence[str], prefix: str) -> dict[str, object]:
    """The settings of a section that have an option of their own, or another value than by default."""
    values = options.model_dump()
    return {
        name: values[name]
        for name, field in type(options).model_fields.items()
        if name != "type" and (prefix + name in offered or getattr(options, name) != field.get_default())
    }
