"""Values of options as they are given: YAML files, `--set key=value`, dotted names, and one over another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from vqtok.errors import ConfigurationError, VqtokError, one_line
from vqtok.files import read_text

__all__ = ["merge", "nest", "parse_assignment", "read_yaml", "read_yaml_text", "write_yaml_text"]


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
        raise ConfigurationError(f"the value in --set {assignment!r} is not YAML: {one_line(error)}") from error


class _Loader(yaml.SafeLoader):
    """YAML without aliases whose numbers may be written 1e-3, as in 1.2; PyYAML reads 1.1, where that is text."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuse an alias: nine lines of them can stand for a billion values."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.YAMLError(f"an alias in line {mark.line + 1}: write the value itself there")
        return super().compose_node(parent, index)

    def integer(self, node: yaml.ScalarNode) -> int:
        """An integer that can be written out, as an error may have to. Raises ValueError, of thousands of digits."""
        value: int = self.construct_yaml_int(node)
        str(value)
        return value


class _Dumper(yaml.SafeDumper):
    """Puts quotes around text that `_Loader` would read as a number, and writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.integer)
for _each in (_Loader, _Dumper):
    _each.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


def read_yaml_text(text: str) -> Any:
    """The value that YAML stands for; nothing in it is executed. Raises yaml.YAMLError."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # what PyYAML makes of a value that does not fit its tag, such as `!!int ""`, and of a thousand brackets
        raise yaml.YAMLError(f"a value that cannot be read, {error!r}") from error


def write_yaml_text(values: Mapping[str, Any]) -> str:
    """YAML that `read_yaml_text` reads as these values, in their order."""
    text: str = yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False)
    return text


def read_yaml(path: Path, *, error: type[VqtokError] = ConfigurationError, regular: bool = True) -> dict[str, Any]:
    """The key: value lines of a YAML file, or of a pipe where `regular` is not asked for.

    Raises:
        VqtokError: of the type `error`: it cannot be read, or holds something else.
    """
    try:
        content = read_yaml_text(read_text(path, regular=regular))
    except (OSError, ValueError, yaml.YAMLError) as reason:
        raise error(f"cannot read the configuration {path}: {one_line(reason)}") from reason
    if not isinstance(content, dict):
        raise error(f"the configuration {path} must hold key: value lines, found {type(content).__name__}")
    return {str(name): value for name, value in content.items()}
