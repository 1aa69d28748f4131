"""vqtok inspect: what a folder holds."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["inspect"]


def inspect(
    path: Annotated[str, typer.Argument(help="Tokenizer, prior, codes or run folder, or Hub id of the first two.")],
    revision: Annotated[str | None, typer.Option(help="On the Hub: branch, tag or commit.")] = None,
) -> None:
    """Say what a folder holds. It can be a tokenizer, a prior, codes or a run."""
    from pathlib import Path

    from vqtok.hub import fetch
    from vqtok.report import describe

    folder = Path(path)
    if not folder.exists() and path.count("/") == 1 and not path.startswith((".", "~")):
        folder = fetch(path, revision=revision)
    summary = describe(folder, name=path)
    typer.echo(f"{path}: {summary.kind}")
    width = max(len(name) for name, _ in summary.rows)
    for name, value in summary.rows:
        typer.echo(f"  {name:<{width}}  {value}")
