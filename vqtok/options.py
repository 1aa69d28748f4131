"""How options are declared, checked, merged and explained: once, for every kind.

The options of a method are one pydantic model in the method's file: name, type, default, bounds and a sentence each.

    class EMAOptions(QuantizerOptions):
        type: Literal["ema"] = "ema"
        decay: float = Field(0.99, ge=0, lt=1, description="decay of the moving averages")

Saved configurations, `--set`, error messages, help texts and the tables of the documentation all come from such a
model. Where a section may be of several types, as `quantizer` is, its field is annotated with `Types`.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, ErrorDetails, core_schema
from pydantic_core import PydanticCustomError as CustomError

from vqtok.errors import ConfigurationError, did_you_mean

__all__ = [
    "Allowed",
    "Options",
    "Setting",
    "Types",
    "all_settings",
    "merge",
    "nest",
    "parse_assignment",
    "read_yaml",
    "read_yaml_text",
    "setting",
    "settings_of",
    "types_of",
]

Path_: TypeAlias = tuple[str, ...]

# What a value must be, by its type.
NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}


if TYPE_CHECKING:  # pydantic does not export its metaclass
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _Explained(ModelMetaclass):
    """Whoever constructs options meets one line in our words, not a report of pydantic's."""

    def __call__(cls: Any, **values: Any) -> Any:
        try:
            return super().__call__(**values)
        except ValidationError as error:
            raise ConfigurationError(_explain(error.errors()[0], cls)) from None


class Options(BaseModel, metaclass=_Explained):
    """A typed description of options. Values are checked strictly and never change; unknown names are refused.

    Raises:
        ConfigurationError: an unknown option, a value of the wrong type or out of bounds, or values that do not go
            together; names the option as it is written in a configuration, such as `quantizer.beta`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    section: ClassVar[str] = ""
    """Where these options stand in a configuration."""


@dataclass(frozen=True)
class Allowed:
    """Annotation that says what a field takes where its type and bounds do not say it well, after "must be"."""

    text: str


class Types:
    """Annotation of a field that holds the options of one of several types, told apart by their entry `type`.

    A word stands for a type with its defaults; entries without a type are of the default one.

    Args:
        kinds: the options of each type, by its name.
        default: the name of the default type.
    """

    def __init__(self, kinds: Mapping[str, type[Options]], *, default: str) -> None:
        self.kinds = dict(kinds)
        self.default = default

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {name: handler.generate_schema(kind) for name, kind in self.kinds.items()}
        union = core_schema.tagged_union_schema(choices, discriminator="type")
        return core_schema.no_info_before_validator_function(self.entries, union)

    def entries(self, value: Any) -> Any:
        """A word, entries or options as entries that name their type."""
        if isinstance(value, str):
            return {"type": value}
        if isinstance(value, Options):
            return value.model_dump()
        if not isinstance(value, Mapping):
            raise CustomError("no_section", "must be the name of a type or key: value entries")
        return {"type": self.default} | {str(name): entry for name, entry in value.items()}

    def named(self, name: Any) -> type[Options]:
        """The options of the type that goes by a name, else those of the default type."""
        return self.kinds.get(name, self.kinds[self.default]) if isinstance(name, str) else self.kinds[self.default]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One option as a help text or a table shows it.

    Attributes:
        name: as it is written in a configuration, sections with a dot.
        type: what Python calls it; null and other second choices left out.
        allowed: what it may be, in words.
        default: its default; None where there is none.
        required: whether it must be given.
        description: what it is for.
    """

    name: str
    type: Any
    allowed: str
    default: Any
    required: bool
    description: str


def settings_of(kind: type[Options], prefix: str = "") -> Iterator[Setting]:
    """Every option of a kind but its type; of a section its name alone."""
    for name, field in kind.model_fields.items():
        if name != "type":
            sections = types_of(field)
            yield Setting(
                name=f"{prefix}{name}",
                type=str if sections else first_type(field.annotation),
                allowed=f"one of {', '.join(sections.kinds)}" if sections else allowed(field),
                default=sections.default if sections else field.get_default(call_default_factory=True),
                required=field.is_required(),
                description=field.description or "",
            )


def all_settings(kind: type[Options], prefix: str = "") -> Iterator[Setting]:
    """Every option of a kind and of the default types of its sections."""
    for item in settings_of(kind, prefix):
        yield item
        if sections := types_of(kind.model_fields[item.name.removeprefix(prefix)]):
            yield from all_settings(sections.named(None), f"{item.name}.")


def setting(kind: type[Options], name: str) -> Setting:
    """One option by its name, `steps` or `quantizer.beta`; in a section, that of the first type that has it."""
    head, _, rest = name.partition(".")
    if not rest:
        return next(item for item in settings_of(kind) if item.name == head)
    sections = types_of(kind.model_fields[head])
    assert sections is not None
    kinds = [sections.named(None), *sections.kinds.values()]
    found = next(item for each in kinds for item in settings_of(each, f"{head}.") if item.name == name)
    return found


def types_of(field: FieldInfo) -> Types | None:
    """The types that a section may have; None for any other field."""
    return next((item for item in field.metadata if isinstance(item, Types)), None)


def first_type(annotation: Any) -> Any:
    """The first plain type that an annotation allows."""
    if get_origin(annotation) is Annotated:
        return first_type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return first_type(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return type(get_args(annotation)[0])
    return get_origin(annotation) or annotation


def allowed(field: FieldInfo) -> str:
    """What a field takes, in words: "a whole number of at least 2"."""
    said = next((item.text for item in field.metadata if isinstance(item, Allowed)), None)
    return said or (kinds_in_words(field.annotation) + bounds_in_words(field.metadata))


def kinds_in_words(annotation: Any) -> str:
    """What an annotation allows, without bounds."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kinds_in_words(arguments[0]) + bounds_in_words(arguments[1:])
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (Union, types.UnionType):
        return " or ".join(map(kinds_in_words, arguments))
    if origin is list:
        return f"a list, each {kinds_in_words(arguments[0])}"
    return NAMES.get(annotation, "key: value entries")


def bounds_in_words(metadata: Sequence[Any]) -> str:
    """The bounds among the metadata of a field: " of at least 0 and below 1"."""
    words = {Ge: "at least {.ge:g}", Gt: "above {.gt:g}", Le: "at most {.le:g}", Lt: "below {.lt:g}"}
    words |= {MinLen: "at least {.min_length}"}
    found = [text.format(item) for item in metadata for kind, text in words.items() if isinstance(item, kind)]
    return f" of {' and '.join(found)}" if found else ""


def _explain(error: ErrorDetails, kind: type[Options]) -> str:
    """One line for a failed check: what was given, what is allowed, what to do."""
    place, names = kind, [kind.section] if kind.section else []
    field: FieldInfo | None = None
    tags: Types | None = None
    for part in error["loc"]:
        if tags is not None:  # pydantic puts the type of a section behind its name
            place, tags, field = tags.named(part), None, None
        elif field is None and part in place.model_fields:
            field = place.model_fields[str(part)]
            names.append(str(part))
            tags = types_of(field)
        elif field is None:
            names.append(str(part))
    name = ".".join(names)
    match error["type"]:
        case "extra_forbidden":
            return _explain_unknown(names, place)
        case "missing":
            return f"{name} must be given"
        case "union_tag_invalid":
            assert tags is not None
            tag = error["input"]["type"]
            return (
                f"{name}.type must be one of {', '.join(tags.kinds)}, got {tag!r}.{did_you_mean(str(tag), tags.kinds)}"
            )
        case "no_section":
            return f"{name} {error['msg']}, got {error['input']!r}"
    reason = str(error.get("ctx", {}).get("error", ""))
    if field is None:
        return f"{name}: {reason}" if name else reason
    text = f"{name} must be {allowed(field)}, got {error['input']!r}"
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    hint = did_you_mean(str(error["input"]), choices)
    return f"{text}: {reason}" if reason else f"{text}.{hint}" if hint else text


def _explain_unknown(names: list[str], kind: type[Options]) -> str:
    """An option that the kind at hand does not have."""
    *outer, name = names
    known = [item.name for item in settings_of(kind)]
    inner = next((section for section in known if name in names_within(kind, section)), None)
    hint = f" Did you mean {'.'.join([*outer, inner, name])!r}?" if inner else did_you_mean(name, known)
    if not outer:
        return f"{name!r} is not a configuration key.{hint}"
    of = kind.model_fields["type"].default if "type" in kind.model_fields else None
    which = f"{'.'.join(outer)}.type {of!r}" if of else ".".join(outer)
    return f"{'.'.join(names)} is not an option of {which}, which has {', '.join(known) or 'none'}.{hint}"


def names_within(kind: type[Options], section: str) -> set[str]:
    """The options of all types that a section may have; none where the field is no section."""
    sections = types_of(kind.model_fields[section])
    kinds = sections.kinds.values() if sections else ()
    return {item.name for each in kinds for item in settings_of(each)}


def merge(values: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """`update` over `values`, sections entry by entry; another type of a section drops what was said of the old one."""
    merged = dict(values)
    for name, new in update.items():
        old = merged.get(name)
        if isinstance(old, Mapping):
            new = {"type": new} if isinstance(new, str) else new
            if isinstance(new, Mapping) and new.get("type", old.get("type")) == old.get("type"):
                new = merge(old, new)
        merged[name] = new
    return merged


def nest(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Dotted names as sections in sections, later pairs over earlier ones, a word for a section as its type.

    `[("quantizer.beta", 1), ("quantizer", "vq")]` gives `{"quantizer": {"beta": 1, "type": "vq"}}`.
    """
    nested: dict[str, Any] = {}
    for name, value in pairs:
        *outer, last = str(name).split(".")
        section = nested
        for part in outer:
            inner = section.get(part, {})
            section[part] = {"type": inner} if isinstance(inner, str) else inner
            if not isinstance(section[part], dict):
                raise ConfigurationError(f"{name!r} is not a configuration key: {part} has no entries")
            section = section[part]
        old = section.get(last)
        if isinstance(value, Mapping):
            before = {"type": old} if isinstance(old, str) else old if isinstance(old, dict) else {}
            value = before | nest(value.items())
        elif isinstance(value, str) and isinstance(old, dict):
            value = old | {"type": value}
        section[last] = value
    return nested


def parse_assignment(assignment: str) -> tuple[str, Any]:
    """`quantizer.beta=0.5` as a name and a value, which is read as YAML."""
    name, equals, text = assignment.partition("=")
    if not equals or not name.strip():
        raise ConfigurationError(f"--set takes key=value, such as quantizer.codebook_size=1024, got {assignment!r}")
    try:
        return name.strip(), read_yaml_text(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(
            f"the value in --set {assignment!r} is not YAML: {' '.join(str(error).split())}"
        ) from error


class _Loader(yaml.SafeLoader):
    """YAML whose numbers may be written 1e-3, as in YAML 1.2; PyYAML reads 1.1, where that is text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", __import__("re").compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml_text(text: str) -> Any:
    """The value that YAML stands for; nothing in it is executed."""
    return yaml.load(text, Loader=_Loader)


def read_yaml(path: Path) -> dict[str, Any]:
    """The key: value lines of a YAML file.

    Raises:
        ConfigurationError: it cannot be read, or holds something else.
    """
    try:
        content = read_yaml_text(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"cannot read the configuration {path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"the configuration {path} must hold key: value lines, found {type(content).__name__}")
    return {str(name): value for name, value in content.items()}
