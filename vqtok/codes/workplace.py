"""The folder that codes are written into: whose it is, and whether there is something to go on with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path

from vqtok.codes.layout import FILES, PLANNING
from vqtok.codes.plan import PLAN
from vqtok.codes.spec import SIDECAR
from vqtok.errors import ConfigurationError
from vqtok.files import check_writable
from vqtok.folders import check_free, clear_folder
from vqtok.locks import locked
from vqtok.store import Store

__all__ = ["check_place", "claimed"]


def check_place(store: Store, *, overwrite: bool = False) -> None:
    """Refuse a place that `claimed` would refuse, before any work.

    Raises:
        ConfigurationError: it holds something else, or cannot be written.
        DataError: the disk is full, or the place cannot be listed.
    """
    names = list(store.sizes())
    if names and not overwrite and PLAN in names:
        return
    if all(_is_one_of(name, PLANNING) for name in names) and (not names or SIDECAR in names):
        if store.is_local:
            check_writable(Path(store.root))
        return
    if store.is_local:
        check_free(Path(store.root), marker=SIDECAR, ours=FILES, overwrite=overwrite)
    elif not overwrite or SIDECAR not in names:
        hint = ", or pass --overwrite" if SIDECAR in names else ""
        raise ConfigurationError(f"{store.place} is not empty: choose another place{hint}")
    elif others := [name for name in names if not _is_one_of(name, FILES)]:
        raise ConfigurationError(
            f"{store.place} holds {others[0]}, which vqtok did not write, so it will not be overwritten: move that "
            "elsewhere, or choose another place"
        )


@contextmanager
def claimed(store: Store, *, overwrite: bool = False) -> Iterator[None]:
    """Have a place for this process alone, as far as it has locks; what a killed process had not finished goes.

    Args:
        overwrite: begin anew: what is there of ours goes first.

    Raises:
        ConfigurationError: another process works there, it holds something else, or it cannot be written.
    """
    check_place(store, overwrite=overwrite)
    if not store.is_local:
        _clear(store, overwrite)
        yield
        return
    folder = Path(store.root)
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        with locked(folder):
            store.remove_unfinished("")
            _clear(store, overwrite)
            yield
    finally:
        for each in made:
            with suppress(OSError):  # not empty
                each.rmdir()


def _clear(store: Store, overwrite: bool) -> None:
    """Remove what may be replaced: all of ours, or of a plan that was not finished."""
    names = list(store.sizes())
    if not overwrite and PLAN in names:
        return
    if store.is_local and overwrite:
        clear_folder(Path(store.root), marker=SIDECAR)
        return
    for name in sorted(names, key=lambda name: name == SIDECAR):
        store.remove(name)


def _is_one_of(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
