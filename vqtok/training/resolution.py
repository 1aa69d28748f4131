"""What decides a run: defaults, then a YAML file, then command-line options, then `--set key=value`.

A name on the command line is the name in the file is the name of the field. The resolved configuration is saved with
the run as config.yaml, and that file given back with `--config` is the same run.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, fields
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from vqtok.errors import ConfigurationError, did_you_mean
from vqtok.files import write_text
from vqtok.training.config import LoopConfig

__all__ = ["load_config", "resolve_config", "resume_config", "save_config"]

# What a run may be given anew when it goes on: its weights, the order of its data and its noise do not depend on these.
CHANGEABLE = (
    "checkpoint_every",
    "compile",
    "eval_every",
    "keep_checkpoints",
    "learning_rate",
    "log_every",
    "max_unreadable",
    "num_workers",
    "out",
    "steps",
    "tracker",
    "usage_warning",
    "usage_window",
    "warmup_steps",
)


Config = TypeVar("Config", bound=LoopConfig)


def resolve_config(
    kind: type[Config],
    *,
    base: Mapping[str, Any] | None = None,
    file: Path | None = None,
    options: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
) -> Config:
    """The configuration from its parts, later ones over earlier ones.

    Args:
        kind: the dataclass.
        base: values under everything else, such as those of a run that is resumed.
        file: a YAML file of fields.
        options: command-line options; those that are None were not given. "quantizer.codebook_size" names an entry.
        assignments: `key=value` with the value in YAML; `quantizer=vq` is short for `quantizer.type=vq`.

    Raises:
        ConfigurationError: an unknown key, a value of the wrong type, an unreadable file.
    """
    values: dict[str, Any] = {f.name: f.default_factory() for f in fields(kind) if f.default_factory is not MISSING}
    given = [(name, value) for name, value in (options or {}).items() if value is not None]
    given += [parse_assignment(assignment) for assignment in assignments]
    for source in ((base or {}).items(), (read_yaml(file) if file else {}).items(), given):
        for name, value in types_first(source):
            put(kind, values, name, value)
    missing = [f.name for f in fields(kind) if required(f) and f.name not in values]
    if missing:
        raise ConfigurationError(f"{', '.join(missing)} must be given")
    return kind(**values)


def resume_config(
    kind: type[Config],
    run: Path,
    *,
    file: Path | None = None,
    options: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
) -> Config:
    """The configuration of a run that goes on: as saved with it, with what may change on the way changed.

    Raises:
        ConfigurationError: there is no run, or a setting that its weights or its data depend on was given anew.
    """
    saved = run / "config.yaml"
    if not saved.is_file():
        raise ConfigurationError(f"there is no run to resume in {run}: leave out --resume to start one")
    before = load_config(kind, saved)
    now = resolve_config(
        kind, base=asdict(before) | {"out": str(run)}, file=file, options=options, assignments=assignments
    )
    for name, value in asdict(before).items():
        if name not in CHANGEABLE and asdict(now)[name] != value:
            raise ConfigurationError(
                f"{name} of the run in {run} is {value!r} and cannot become {asdict(now)[name]!r} on resuming; "
                f"what can change: {', '.join(CHANGEABLE)}"
            )
    return now


def parse_assignment(assignment: str) -> tuple[str, Any]:
    name, equals, text = assignment.partition("=")
    if not equals or not name.strip():
        raise ConfigurationError(f"--set takes key=value, such as quantizer.codebook_size=1024, got {assignment!r}")
    try:
        return name.strip(), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(
            f"the value in --set {assignment!r} is not YAML: {' '.join(str(error).split())}"
        ) from error


def types_first(pairs: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """One pair an entry, those that choose a type before those that set an option of it, outer sections first."""
    entries = [entry for name, value in pairs for entry in spread(name, value)]
    return sorted(entries, key=lambda entry: ("." in entry[0] and not entry[0].endswith(".type"), entry[0].count(".")))


def spread(name: str, value: Any) -> list[tuple[str, Any]]:
    """The entries of a section, of sections in it too, as dotted names; anything else as it is."""
    if not (isinstance(value, Mapping) and value):
        return [(name, value)]
    return [entry for key, inner in value.items() for entry in spread(f"{name}.{key}", inner)]


def put(kind: type[LoopConfig], values: dict[str, Any], name: str, value: Any) -> None:
    """Set one field, or one entry of a field that is a section."""
    known = {f.name: f for f in fields(kind)}
    head, *path = name.split(".")
    if head not in known:
        raise ConfigurationError(f"{name!r} is not a configuration key.{did_you_mean(head, known)}")
    if get_origin(get_type_hints(kind)[head]) is dict:
        put_entry(values[head], path, name, value)
    elif path:
        raise ConfigurationError(f"{name!r} is not a configuration key: {head} has no entries")
    else:
        values[head] = typed(head, value, get_type_hints(kind)[head])


def put_entry(section: dict[str, Any], path: list[str], name: str, value: Any) -> None:
    """Set what a path leads to in a section; no path at all chooses its type."""
    if len(path) == 1 and isinstance(value, str) and isinstance(section.get(path[0]), dict):
        path = [*path, "type"]  # quantizer.each=vq is short for quantizer.each.type=vq
    if len(path) > 1:
        inner = section.get(path[0], {})
        section[path[0]] = {"type": inner} if isinstance(inner, str) else inner
        if not isinstance(section[path[0]], dict):
            raise ConfigurationError(f"{name!r} is not a configuration key: {path[0]} has no entries")
        put_entry(section[path[0]], path[1:], name, value)
        return
    if path:
        given = {path[0]: number(value)}
    elif isinstance(value, str):
        given = {"type": value}
    elif isinstance(value, Mapping):
        given = {}
    else:
        raise ConfigurationError(f"{name} must be a type or key: value entries, got {value!r}")
    if given.get("type", section.get("type")) != section.get("type"):
        section.clear()  # options of one type mean nothing to another
    section.update(given)


def typed(name: str, value: Any, hint: Any) -> Any:
    """The value, refused unless it has the field's type; an int, or text such as 1e-3, may stand for a float."""
    allowed = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    value = number(value) if float in allowed or int in allowed else value
    if float in allowed and type(value) is int:
        return float(value)
    for kind in allowed:
        origin = get_origin(kind) or kind
        if type(value) is origin and (origin is not list or all(type(item) in get_args(kind) for item in value)):
            return value
    wanted = " or ".join("null" if kind is types.NoneType else getattr(kind, "__name__", str(kind)) for kind in allowed)
    raise ConfigurationError(f"{name} must be {wanted}, got {value!r}")


def number(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as text; what reads as a float is one."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def required(item: Field[Any]) -> bool:
    return item.default is MISSING and item.default_factory is MISSING


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"cannot read the configuration {path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"the configuration {path} must hold key: value lines, found {type(content).__name__}")
    return {str(name): value for name, value in content.items()}


def save_config(config: LoopConfig, path: Path) -> None:
    """Write every field as YAML, in the order of the dataclass."""
    write_text(path, yaml.safe_dump(asdict(config), sort_keys=False))


def load_config(kind: type[Config], path: Path) -> Config:
    """Read back what `save_config` wrote."""
    return resolve_config(kind, file=path)
