"""What the annotation of a field can say of an option, beside its type and its bounds."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from vqtok.errors import ConfigurationError, did_you_mean, shortened

if TYPE_CHECKING:
    from vqtok.options.base import Options

__all__ = ["Allowed", "DefaultText", "TrainingOnly", "Types", "types_of", "with_hint"]


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
        if isinstance(given, BaseModel):
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
            raise _refused(with_hint(text, did_you_mean(str(name), self.words)))
        return entries


def types_of(field: FieldInfo) -> Types | None:
    """The types that a section may have; None for any other field."""
    return next((item for item in field.metadata if isinstance(item, Types)), None)


def _refused(text: str) -> PydanticCustomError:
    """An error of a section as a whole; its braces are no placeholders."""
    return PydanticCustomError("section", "{text}", {"text": text})


def with_hint(text: str, hint: str) -> str:
    return f"{text}.{hint}" if hint else text
