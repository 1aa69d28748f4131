"""codes.json: the spec of a codes folder, beside its codes."""

from __future__ import annotations

from pathlib import Path

from vqtok.codes.plan import PLAN
from vqtok.codes.spec import SIDECAR, CodesSpec
from vqtok.errors import CheckpointError, DataError
from vqtok.schema import read_object
from vqtok.store import Store

__all__ = ["check_sidecar", "read_sidecar", "write_sidecar"]

MOST = 2**30  # bytes; it names every image that could not be read
MAKE = "make codes with `vqtok tokenize`"
ANEW = "delete it and run the same again, which writes it anew"


def read_sidecar(folder: Path | str) -> dict[str, object] | None:
    """The object in a folder's `codes.json`; None where there is no such file.

    Args:
        folder: a path, or an address.

    Raises:
        DataError: it cannot be read.
    """
    if isinstance(folder, str):
        return Store(folder).read_object(SIDECAR, advice=MAKE)
    if not (folder / SIDECAR).is_file():
        return None
    try:
        return read_object(folder / SIDECAR, most=MOST)
    except CheckpointError as error:
        raise DataError(f"{error}: {MAKE}") from None


def write_sidecar(spec: CodesSpec, store: Store) -> None:
    """Write the spec, in place of an older one."""
    store.put(SIDECAR, (spec.to_json() + "\n").encode())


def check_sidecar(spec: CodesSpec, store: Store) -> None:
    """Write codes.json where it is gone, and refuse one that tells of other codes than the plan.

    Args:
        spec: that of the plan.

    Raises:
        DataError: it is damaged or was edited.
    """
    values, name = store.read_object(SIDECAR, advice=ANEW), store.path(SIDECAR)
    if values is None:
        write_sidecar(spec, store)
        return
    try:
        told = CodesSpec.from_dict(values, name=name)
    except DataError as error:
        raise DataError(f"{name} is damaged: {ANEW}") from error
    if told.identity != spec.identity:
        raise DataError(f"{name} was edited, and tells of other codes than {PLAN}: {ANEW}")
