"""What a failed check of options says: what was given, what is allowed, what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from vqtok.errors import did_you_mean, shortened
from vqtok.options.annotations import types_of, with_hint
from vqtok.options.settings import allowed, choices, settings_of

if TYPE_CHECKING:
    from vqtok.options.base import Options

__all__ = ["explain"]


def explain(error: ValidationError, kind: type[Options], values: Mapping[str, Any]) -> str:
    """One line for failed checks: what was given, what is allowed, what to do. The first check speaks for all."""
    first = error.errors()[0]
    path, place, field = locate(first["loc"], kind)
    names = [kind.section, *path] if kind.section else path
    name = ".".join(names)
    match first["type"]:
        case "missing":
            missing = [str(item["loc"][-1]) for item in error.errors() if item["type"] == "missing"]
            return f"{', '.join(missing)} must be given"
        case "extra_forbidden":
            return explain_unknown(names, place)
        case "section":
            return name + first["msg"]
    reason = str(first.get("ctx", {}).get("error", ""))  # what a validator of ours said
    if field is None:
        return f"{name}: {reason}" if name else reason
    given = reduce(lambda section, part: section[part], path, values)  # the whole list where an item failed
    finite = " and finite" if first["type"] == "finite_number" else ""
    text = f"{name} must be {allowed(field)}{finite}, got {shortened(given)}"
    return f"{text}: {reason}" if reason else with_hint(text, did_you_mean(str(given), choices(field)))


def locate(location: Sequence[str | int], kind: type[Options]) -> tuple[list[str], type[Options], FieldInfo | None]:
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


def explain_unknown(names: list[str], kind: type[Options]) -> str:
    """An option that the kind at hand does not have; perhaps one of its sections has it."""
    *outer, name = names
    known = [item.name for item in settings_of(kind)]
    within = {
        ".".join([*outer, section, option]): option
        for section in known
        if (choice := types_of(kind.model_fields[section]))
        for inner in choice.kinds.values()
        for option in inner.model_fields
    }
    same = [repr(full) for full, option in within.items() if option == name]
    hint = f" Did you mean {' or '.join(same)}?" if same else did_you_mean(name, [*known, *within])
    if not outer:
        return with_hint(f"{name!r} is not {kind.entry}", hint)
    owner = f"{'.'.join(outer)}.type {kind.model_fields['type'].default!r}"
    return with_hint(f"{'.'.join(names)} is not an option of {owner}, which has {', '.join(known) or 'none'}", hint)
