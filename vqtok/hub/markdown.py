"""Text from files as Markdown that only shows it: no headings, links, HTML or table cells of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

__all__ = ["code", "fenced", "one_line", "plain", "table"]


def plain(text: object) -> str:
    """One line of text without markup."""
    marked = re.sub(r"([\\`*|~]|\](?=\()|(?<!\w)_|_(?!\w))", r"\\\1", one_line(text))
    return escape(marked, quote=False)


def code(text: object) -> str:
    """One line as inline code."""
    line = one_line(text).replace("|", "¦")  # ends a cell of a table, in code too
    ticks = "`" * (longest_run(line) + 1)
    edge = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{edge}{line}{edge}{ticks}"


def fenced(text: str, language: str) -> str:
    """Lines as a block of code."""
    ticks = "`" * max(3, longest_run(text) + 1)
    return f"{ticks}{language}\n{text}\n{ticks}"


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table; all cells are plain text."""
    names = list(header)
    lines = [names, ["---"] * len(names), *([plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def one_line(text: object) -> str:
    """Control characters and line breaks become spaces."""
    return " ".join("".join(character if character.isprintable() else " " for character in str(text)).split())


def longest_run(text: str) -> int:
    """Of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)
