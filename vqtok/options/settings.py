"""Options as a help text or a table shows them."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from vqtok.options.annotations import Allowed, DefaultText, types_of

if TYPE_CHECKING:
    from vqtok.options.base import Options

__all__ = ["Setting", "allowed", "choices", "setting", "settings_of"]


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
        allowed=allowed(field),
        choices=section.words if section else choices(field),
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


def choices(field: FieldInfo) -> tuple[str, ...]:
    """The words that a field, or each item of its list, may be; none where it may be anything else."""
    kind = get_args(field.annotation)[0] if get_origin(field.annotation) is list else field.annotation
    return tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else ()


def allowed(field: FieldInfo) -> str:
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
