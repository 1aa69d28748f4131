"""What is left of a shard that is done: how many rows, which bytes, and the images that could not be read.

A receipt is written after the shard, so that a shard with a receipt is whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from vqtok.codes.plan import Plan, Shard
from vqtok.errors import DataError
from vqtok.schema import checked
from vqtok.store import Store

__all__ = ["BadImage", "Receipt", "read_receipt", "read_receipts", "write_receipt"]

READERS = 32  # threads; of 15,259 receipts of an object store most of the time is waiting


@dataclass(frozen=True, kw_only=True)
class BadImage:
    """An image that was left out.

    Attributes:
        row: of its split, as the plan counts them.
        name: its file or row, as messages call it.
        reason: what is wrong with it.
    """

    row: int
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """A finished shard.

    Attributes:
        plan: digest of the plan that it belongs to.
        shard: which, as `Shard.name`.
        rows: rows in it, of which each image has as many as there are views, by default one.
        bytes: size of its file.
        sha256: of its file, as hex.
        bad: the images that are not in it; with those of the rows they are all that the plan counts.
        attempts: how often it was begun.
    """

    plan: str
    shard: str
    rows: int
    bytes: int
    sha256: str
    bad: tuple[BadImage, ...] = ()
    attempts: int = 1


def write_receipt(store: Store, shard: Shard, receipt: Receipt) -> None:
    """Say that a shard is done, once its file is in the store."""
    store.put(shard.receipt, (json.dumps(asdict(receipt), ensure_ascii=False) + "\n").encode())


def read_receipts(store: Store, plan: Plan) -> Iterator[tuple[Shard, Receipt | None]]:
    """Every shard of a plan in order, with its receipt; None where it is still to be done.

    A shard whose file is gone, or has another size than its receipt says, is still to be done.

    Raises:
        DataError: a receipt is damaged, or belongs to another plan.
    """
    sizes = store.sizes()

    def read(shard: Shard) -> tuple[Shard, Receipt | None]:
        if shard.receipt not in sizes or shard.file not in sizes:
            return shard, None
        receipt = read_receipt(store, shard, plan)
        return shard, receipt if receipt.bytes == sizes[shard.file] else None

    with ThreadPoolExecutor(READERS) as pool:
        yield from pool.map(read, plan.shards())


def read_receipt(store: Store, shard: Shard, plan: Plan) -> Receipt:
    """The receipt of a shard that is done.

    Raises:
        FileNotFoundError: it has none.
        DataError: it is damaged, or belongs to another plan.
    """
    name = store.path(shard.receipt)
    values = store.read_object(shard.receipt, advice="delete it, and the shard is made again")
    if values is None:
        raise FileNotFoundError(name)
    try:
        receipt = checked(Receipt, values, name=name, error=DataError)
    except DataError as error:
        raise DataError(f"{error}: delete it, and the shard is made again") from None
    if (receipt.plan, receipt.shard) != (plan.digest, shard.name):
        raise DataError(f"{name} belongs to another plan: delete it, and the shard is made again")
    images = shard.stop - shard.start - len(receipt.bad)
    if receipt.rows != images * plan.request.rows_per_image:
        raise DataError(f"{name} does not count all rows of its shard: delete it, and the shard is made again")
    return receipt
