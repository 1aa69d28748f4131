"""vqtok demo: the whole way on the digits inside the package, from pictures to new ones, ending in a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["demo"]


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of weights, order and samples.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder of an earlier demo.")] = False,
) -> None:
    """Train, evaluate, tokenize, learn a prior and sample: the whole way on digits, in a few minutes."""
    from vqtok.errors import ConfigurationError

    raise ConfigurationError("the demo is not there yet: start with `vqtok train`")
