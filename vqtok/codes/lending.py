"""A tokenizer that lies in the codes folder while workers on other machines need it.

All of them see that folder, while a folder of the tokenizer, or the network of the Hub, may be one machine's alone.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vqtok.codes.layout import LENT_TOKENIZER
from vqtok.store import Store

if TYPE_CHECKING:
    from vqtok.tokenizer import VQTokenizer

__all__ = ["borrowed", "lent", "remove_lent"]

FOLDER = "plan/tokenizer"


@contextmanager
def lent(tokenizer: VQTokenizer, store: Store) -> Iterator[None]:
    """Keep a tokenizer in a codes folder.

    Raises:
        DataError: the disk is full, or the store does not take it.
    """
    with tempfile.TemporaryDirectory(prefix="vqtok-") as scratch:
        tokenizer.save_pretrained(scratch)
        for file in sorted(Path(scratch).iterdir()):
            store.put(f"{FOLDER}/{file.name}", file.read_bytes())
    try:
        yield
    finally:
        remove_lent(store)


@contextmanager
def borrowed(store: Store) -> Iterator[str]:
    """A folder of this machine with the tokenizer that lies in a codes folder."""
    if store.is_local:
        yield str(store.folder / FOLDER)
        return
    with tempfile.TemporaryDirectory(prefix="vqtok-") as scratch:
        for name in _files(store):
            (Path(scratch) / name.rpartition("/")[2]).write_bytes(store.read(name))
        yield scratch


def remove_lent(store: Store) -> None:
    """Remove the tokenizer from a codes folder, which a driver that was killed could not do."""
    names = _files(store)
    for name in names:
        store.remove(name)
    store.remove_folders_of(names)


def _files(store: Store) -> list[str]:
    return [name for name in store.sizes(FOLDER) if re.fullmatch(LENT_TOKENIZER, name)]
