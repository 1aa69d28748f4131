"""How options are declared, checked and explained: once, for every kind.

The options of a method are one pydantic model in the method's file: name, type, default, bounds and a sentence each.

    class EMAOptions(QuantizerOptions):
        type: Literal["ema"] = "ema"
        decay: float = Field(0.99, ge=0, lt=1, description="decay of the moving averages")

Saved configurations, `--set`, error messages, help texts and the tables of the documentation all come from such a
model. Where a section may be of several types, as `quantizer` is, its field is annotated with `Types`.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from vqtok.errors import ConfigurationError, did_you_mean, shortened

__all__ = [
    "Allowed",
    "DefaultText",
    "Options",
    "Setting",
    "TrainingOnly",
    "Types",
    "setting",
    "settings_of",
    "types_of",
]

if TYPE_CHECKING:  # pydantic does not export its metaclass
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _Explained(ModelMetaclass):
    """Whoever constructs options meets one line in our words, not a report of pydantic's."""

    def __call__(cls: Any, /, **values: Any) -> Any:
        try:
            return super().__call__(**values)
        except ValidationError as error:
            line = _explain(error, cls, values)
        raise ConfigurationError("".join(char if char.isprintable() else repr(char)[1:-1] for char in line))


class Options(BaseModel, metaclass=_Explained):
    """A typed description of options. Values are checked strictly and cannot be set anew; unknown names are refused.

    Raises:
        ConfigurationError: an unknown option, a value of the wrong type or out of bounds, or values that do not go
            together; names the option as it is written in a configuration, such as `quantizer.beta`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    section: ClassVar[str] = ""  # where these options stand in a configuration
    entry: ClassVar[str] = "a configuration key"  # what an error calls one of these options


@dataclass(frozen=True)
class Allowed:
    """Annotation that says what a field takes where its type and bounds do not say it well, after "must be"."""

    text: str


@dataclass(frozen=True)
class DefaultText:
    """Annotation that says what the default of a field stands for, where null or a number does not say it."""

    text: str


@dataclass(frozen=True)
class TrainingOnly:
    """Annotation of a field that only training looks at: it decides no code and the shape of no weight."""


class Types:
    """Annotation of a field that holds the options of one of several types, told apart by their entry `type`.

    A word stands for a type with its defaults, or for a preset; entries without a type are of the default one.

    Args:
        kinds: the options of each type, by its name.
        default: the name of the default type.
        presets: entries by a name of their own, which takes the place of a type and may be followed by other entries.
    """

    def __init__(
        self,
        kinds: Mapping[str, type[Options]],
        *,
        default: str,
        presets: Mapping[str, Mapping[str, Any]] = types.MappingProxyType({}),
    ) -> None:
        self.kinds = dict(kinds)
        self.default = default
        self.presets = dict(presets)

    @property
    def words(self) -> tuple[str, ...]:
        """What can stand for a type."""
        return (*self.kinds, *self.presets)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {name: handler.generate_schema(kind) for name, kind in self.kinds.items()}
        union = core_schema.tagged_union_schema(choices, discriminator="type")
        return core_schema.no_info_before_validator_function(self._entries, union)

    def entries(self, given: Any) -> dict[str, Any]:
        """A word, entries or options as entries that name one of the types.

        Raises:
            ConfigurationError: there is no such type.
        """
        try:
            return self._entries(given)
        except PydanticCustomError as error:
            raise ConfigurationError(f"{self.named(None).section}{error}") from None

    def named(self, name: Any) -> type[Options]:
        """The options of the type or preset of this name, else those of the default type."""
        if isinstance(name, str) and name in self.presets:
            name = self.presets[name]["type"]
        return self.kinds[name if isinstance(name, str) and name in self.kinds else self.default]

    def _entries(self, given: Any) -> dict[str, Any]:
        """What `entries` gives; an error says what comes after the name of the section, which may be in another."""
        if isinstance(given, Options):
            given = given.model_dump()
        if isinstance(given, str):
            given = {"type": given}
        if not isinstance(given, Mapping):
            raise _refused(f" must be the name of a type or key: value entries, got {shortened(given)}")
        entries = {"type": self.default} | {str(name): value for name, value in given.items()}
        name = entries["type"]
        if isinstance(name, str) and name in self.presets:
            return {**self.presets[name], **{key: value for key, value in entries.items() if key != "type"}}
        if not isinstance(name, str) or name not in self.kinds:
            text = f".type must be one of {', '.join(self.words)}, got {shortened(name)}"
            raise _refused(_with_hint(text, did_you_mean(str(name), self.words)))
        return entries


def types_of(field: FieldInfo) -> Types | None:
    """The types that a section may have; None for any other field."""
    return next((item for item in field.metadata if isinstance(item, Types)), None)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One option as a help text or a table shows it.

    Attributes:
        name: as it is written in a configuration, sections with a dot.
        type: what Python calls it; null and other second choices left out.
        allowed: what it may be, in words.
        default: its default, of a section the name of the default type; None where there is none.
        required: whether it must be given.
        description: what it is for.
        choices: the words it may be, or each item of a list, where these are all; of a section its types and presets.
        default_text: its default in words, where it has such.
    """

    name: str
    type: Any
    allowed: str
    default: Any
    required: bool
    description: str
    choices: tuple[str, ...] = ()
    default_text: str = ""


def settings_of(kind: type[Options], prefix: str = "") -> Iterator[Setting]:
    """Every option of a kind but its type; of a section its name alone."""
    for name, field in kind.model_fields.items():
        if name != "type":
            yield _setting(prefix + name, field)


def setting(kind: type[Options], name: str, prefix: str = "") -> Setting:
    """One option by its name, `steps` or `quantizer.beta`; in a section, that of the first type that has it.

    The default type comes first. Raises KeyError where there is no such option.
    """
    head, _, rest = name.partition(".")
    field = kind.model_fields[head]
    if not rest:
        return _setting(prefix + head, field)
    section = types_of(field)
    for inner in [section.named(None), *section.kinds.values()] if section else []:
        if rest.partition(".")[0] in inner.model_fields:
            return setting(inner, rest, f"{prefix}{head}.")
    raise KeyError(prefix + name)


def _setting(name: str, field: FieldInfo) -> Setting:
    section = types_of(field)
    return Setting(
        name=name,
        type=str if section else _plain_type(field.annotation),
        allowed=_allowed(field),
        choices=section.words if section else _choices(field),
        default=section.default if section else None if field.is_required() else field.get_default(),
        required=field.is_required(),
        description=field.description or "",
        default_text=next((item.text for item in field.metadata if isinstance(item, DefaultText)), ""),
    )


def _plain_type(annotation: Any) -> Any:
    """The first type that an annotation allows."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Annotated, Union, types.UnionType):
        return _plain_type(arguments[0])
    return type(arguments[0]) if origin is Literal else origin or annotation


def _choices(field: FieldInfo) -> tuple[str, ...]:
    """The words that a field, or each item of its list, may be; none where it may be anything else."""
    kind = get_args(field.annotation)[0] if get_origin(field.annotation) is list else field.annotation
    return tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else ()


def _allowed(field: FieldInfo) -> str:
    """What a field takes, in words: "a whole number of at least 2"."""
    section = types_of(field)
    return f"one of {', '.join(section.words)}" if section else _in_words(field.annotation, field.metadata)


def _in_words(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """What an annotation allows and its metadata narrow."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    for item in metadata:
        if isinstance(item, Allowed):
            return item.text
    if origin is Annotated:
        return _in_words(arguments[0], [part for item in arguments[1:] for part in getattr(item, "metadata", [item])])
    if origin is Literal:
        return f"{'one of ' if len(arguments) > 1 else ''}{', '.join(map(str, arguments))}"
    if origin in (Union, types.UnionType):
        return " or ".join(_in_words(kind, () if kind is types.NoneType else metadata) for kind in arguments)
    what = f"a list, each {_in_words(arguments[0])}" if origin in (list, tuple) else KINDS[annotation]
    return what + _bounds_in_words(metadata)


KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}


def _bounds_in_words(metadata: Sequence[Any]) -> str:
    """The bounds among the metadata of a field: " of at least 0 and below 1"."""
    bounds = {type(item): item for item in metadata}
    if Ge in bounds and Le in bounds:
        return f" from {bounds[Ge].ge} to {bounds[Le].le}"
    words = {Ge: "of at least {.ge}", Gt: "above {.gt}", Le: "of at most {.le}", Lt: "below {.lt}"}
    found = [text.format(bounds[kind]) for kind, text in words.items() if kind in bounds]
    return f" {' and '.join(found)}" if found else ""


def _explain(error: ValidationError, kind: type[Options], values: Mapping[str, Any]) -> str:
    """One line for failed checks: what was given, what is allowed, what to do. The first check speaks for all."""
    first = error.errors()[0]
    path, place, field = _locate(first["loc"], kind)
    names = [kind.section, *path] if kind.section else path
    name = ".".join(names)
    match first["type"]:
        case "missing":
            missing = [str(item["loc"][-1]) for item in error.errors() if item["type"] == "missing"]
            return f"{', '.join(missing)} must be given"
        case "extra_forbidden":
            return _explain_unknown(names, place)
        case "section":
            return name + first["msg"]
    reason = str(first.get("ctx", {}).get("error", ""))  # what a validator of ours said
    if field is None:
        return f"{name}: {reason}" if name else reason
    given = reduce(lambda section, part: section[part], path, values)  # the whole list where an item failed
    finite = " and finite" if first["type"] == "finite_number" else ""
    text = f"{name} must be {_allowed(field)}{finite}, got {shortened(given)}"
    return f"{text}: {reason}" if reason else _with_hint(text, did_you_mean(str(given), _choices(field)))


def _locate(location: Sequence[str | int], kind: type[Options]) -> tuple[list[str], type[Options], FieldInfo | None]:
    """Where a check failed: the names that lead there, the options there, and the field; None where it is none."""
    path: list[str] = []
    field: FieldInfo | None = None
    for part in location:
        if field is None:
            path.append(str(part))
            field = kind.model_fields.get(str(part))
        elif section := types_of(field):  # pydantic puts the type of a section behind its name
            kind, field = section.named(part), None
    return path, kind, field


def _explain_unknown(names: list[str], kind: type[Options]) -> str:
    """An option that the kind at hand does not have; perhaps one of its sections has it."""
    *outer, name = names
    known = [item.name for item in settings_of(kind)]
    within = {
        option: ".".join([*outer, section, option])
        for section in known
        if (choice := types_of(kind.model_fields[section]))
        for inner in choice.kinds.values()
        for option in inner.model_fields
    }
    hint = f" Did you mean {within[name]!r}?" if name in within else did_you_mean(name, [*known, *within.values()])
    if not outer:
        return _with_hint(f"{name!r} is not {kind.entry}", hint)
    owner = f"{'.'.join(outer)}.type {kind.model_fields['type'].default!r}"
    return _with_hint(f"{'.'.join(names)} is not an option of {owner}, which has {', '.join(known) or 'none'}", hint)


def _refused(text: str) -> PydanticCustomError:
    """An error of a section as a whole; its braces are no placeholders."""
    return PydanticCustomError("section", "{text}", {"text": text})


def _with_hint(text: str, hint: str) -> str:
    return f"{text}.{hint}" if hint else text
