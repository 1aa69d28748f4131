"""The folder that codes are written into: whose it is, and whether there is something to go on with."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vqtok.codes.card import CARD, is_unfinished
from vqtok.codes.layout import PLANNING, RECEIPT, own_files
from vqtok.codes.lending import remove_lent
from vqtok.codes.plan import PLAN, read_plan
from vqtok.codes.spec import SIDECAR
from vqtok.errors import ConfigurationError, DataError
from vqtok.files import check_path, check_writable
from vqtok.folders import check_free
from vqtok.locks import OWNER_FILE, locked, this_process
from vqtok.store import Store, is_partial

__all__ = ["check_place", "claimed", "clear", "clear_planning", "codes_files"]


def check_place(store: Store, *, overwrite: bool = False) -> None:
    """Refuse a place that `claimed` would refuse, before any work.

    Raises:
        ConfigurationError: it holds something else, or cannot be written.
        DataError: the disk is full, or the place cannot be listed.
    """
    if re.match("https?:", store.place):
        raise ConfigurationError(
            f"{store.place} cannot be written: name a folder, or an address such as s3://bucket/codes"
        )
    if store.is_local:
        check_path(store.folder)
        if "::" in store.root:
            raise ConfigurationError(f"{store.place}: `datasets` reads no folder with :: in its path; choose another")
    names = [name for name in store.sizes() if name != OWNER_FILE and not is_partial(name)]
    if names and not overwrite and PLAN in names:
        return
    if not names or _is_planning(store, names):
        if store.is_local:
            check_writable(store.folder)
        return
    if store.is_local:
        check_free(store.folder, marker=SIDECAR, ours=codes_files, overwrite=overwrite)
    elif not overwrite and PLAN in store.sizes():  # another process wrote it since: there are no locks
        return
    elif not overwrite or SIDECAR not in names:
        hint = ", or pass --overwrite" if SIDECAR in names else ""
        raise ConfigurationError(f"{store.place} is not empty: choose another place{hint}")
    elif others := [name for name in names if not re.fullmatch(_own_files(store), name)]:
        raise ConfigurationError(
            f"{store.place} holds {others[0]}, which vqtok did not write, so it will not be overwritten: move that "
            "elsewhere, or choose another place"
        )


@contextmanager
def claimed(store: Store, *, overwrite: bool = False) -> Iterator[bool]:
    """Have a place for this process alone, as far as it has locks; what killed processes had not finished goes.

    Gives whether the last process at work there crashed or was killed, as its owner file says that is still there.

    Args:
        overwrite: what is there of ours may be replaced, see `clear`.

    Raises:
        ConfigurationError: another process works there, it holds something else, or it cannot be written.
    """
    check_place(store, overwrite=overwrite)
    if not store.is_local:
        with _owner_file(store) as died:
            yield died
        return
    made = [each.absolute() for each in (store.folder, *store.folder.absolute().parents) if not each.exists()]
    try:
        with locked(store.folder) as died:
            store.remove_unfinished("")
            remove_lent(store)
            try:
                yield died
            finally:
                store.remove_unfinished("")  # of workers that were killed
    finally:
        for each in made:
            with suppress(OSError):  # not empty
                each.rmdir()


@contextmanager
def _owner_file(store: Store) -> Iterator[bool]:
    """Say who is at work where there are no locks; gives whether the last process there never said that it left."""
    died = OWNER_FILE in store.sizes()
    remove_lent(store)
    store.put(OWNER_FILE, this_process().encode())
    try:
        yield died
    finally:
        with suppress(DataError):
            store.remove(OWNER_FILE)


def clear(store: Store, card: bytes) -> None:
    """Remove the codes, or the unfinished plan, in a place that was `claimed`; what others put there since stays.

    From the first moment on they do not load. The plan goes after all that it names, the marker last, so that wherever
    this is cut off, the next `claimed` knows the place.

    Args:
        card: one that names no files.
    """
    ours = _own_files(store)
    names = [name for name in store.sizes() if re.fullmatch(ours, name)]
    if not names:
        return
    store.put(CARD, card)
    last = [PLAN, CARD, SIDECAR]
    for name in [*(name for name in names if name not in last), *last]:
        store.remove(name)
    store.remove_folders_of(names)


def clear_planning(store: Store, keep: Collection[str]) -> None:
    """Remove what is left of an unfinished plan, save some files: another process may be writing the same ones."""
    names = [name for name in store.sizes() if re.fullmatch(PLANNING, name) and name not in keep]
    for name in names:
        store.remove(name)
    store.remove_folders_of(names)


def _is_planning(store: Store, names: Collection[str]) -> bool:
    """Whether these are the files of a plan that was not finished, whose card says so."""
    if SIDECAR not in names or not all(re.fullmatch(PLANNING, name) for name in names):
        return False
    return CARD not in names or is_unfinished(store.read(CARD).decode(errors="replace"))


def codes_files(folder: Path) -> str:
    """A regular expression of the files of a codes folder, relative to it; its plan says which splits it has."""
    return _own_files(Store(folder))


def _own_files(store: Store) -> str:
    try:
        plan = read_plan(store)
    except DataError:  # damaged or edited; where it has receipts there are splits
        receipts = (re.fullmatch(RECEIPT, name) for name in store.sizes("receipts"))
        return own_files({receipt[1] for receipt in receipts if receipt})
    return own_files(split.name for split in plan.splits) if plan else own_files(())
