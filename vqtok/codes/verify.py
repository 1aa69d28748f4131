"""Whether a codes folder still holds what was written: shards against their receipts, all else against the plan.

A run that goes on looks at the sizes of shards alone: to read half a terabyte of codes again would take it hours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from tqdm import tqdm

from vqtok.codes.added import held_out_file
from vqtok.codes.assemble import places_of, wrong_files
from vqtok.codes.layout import PLANNING
from vqtok.codes.origin import check_origin
from vqtok.codes.plan import PLAN, Plan, Shard, read_plan
from vqtok.codes.receipt import Receipt, read_receipt
from vqtok.codes.spec import SIDECAR, CodesSpec
from vqtok.errors import DataError, VqtokError
from vqtok.store import Store

__all__ = ["Verified", "WrongFile", "verify_codes"]

THREADS = 8  # checksums of files at a time: one core makes about 1.5 GB/s, a disk or a network gives more to several


@dataclass(frozen=True, kw_only=True)
class WrongFile:
    """A file that is not what was written.

    Attributes:
        file: its name in the codes folder.
        reason: what is wrong with it.
    """

    file: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What came of a look at all files.

    Attributes:
        shards: how many were looked at.
        bytes: how many of them were read.
        wrong: the files that are not what was written, in the order of the plan.
    """

    shards: int
    bytes: int
    wrong: tuple[WrongFile, ...]


def verify_codes(place: str, *, progress: bool = True) -> Verified:
    """Recompute the checksums of a codes folder that `vqtok tokenize` wrote.

    Args:
        place: a path or an address.
        progress: show a bar on a terminal.

    Raises:
        DataError: there is no plan, such as in a copy from the Hub, or it is damaged or was edited.
    """
    store = Store(place)
    plan = read_plan(store)
    if plan is None:
        raise DataError(
            f"{place} has no {PLAN} and no receipts to check its files against: only what `vqtok tokenize` wrote has "
            "them, and what was pushed, saved or loaded elsewhere has not"
        )
    bytes, receipts, wrong = 0, dict[str, Receipt](), list(_wrong_spec(store, plan))
    with (
        ThreadPoolExecutor(THREADS) as pool,
        tqdm(total=plan.rows, desc="verifying", unit=" images", disable=None if progress else True) as bar,
    ):
        looked = pool.map(partial(_look, store, plan), plan.shards())
        for shard, (receipt, found) in zip(plan.shards(), looked, strict=True):
            wrong += found
            bar.update(shard.stop - shard.start)
            if receipt is not None:
                bytes += receipt.bytes
                receipts[shard.name] = receipt
    wrong += _wrong_shards(store, plan)
    if len(receipts) == plan.num_shards:
        wrong += [WrongFile(file=name, reason=reason) for name, reason in wrong_files(plan, store, receipts)]
    return Verified(shards=plan.num_shards, bytes=bytes, wrong=tuple(wrong))


def _wrong_spec(store: Store, plan: Plan) -> Iterator[WrongFile]:
    """The files beside the shards that are wrong: codes.json, and those of the plan."""
    try:
        spec = CodesSpec.from_dict(json.loads(store.read(SIDECAR)), name=SIDECAR)
        if spec.identity != plan.spec.identity:
            yield WrongFile(file=SIDECAR, reason=f"it names tokenizer {spec.fingerprint[:12]}, the plan another")
    except FileNotFoundError:
        yield WrongFile(file=SIDECAR, reason="it is missing")
    except (VqtokError, ValueError, RecursionError) as error:
        yield WrongFile(file=SIDECAR, reason=f"it is damaged ({error})")
    check_origin(plan, store)
    listed = [(each["path"], each.get("sha256")) for split in plan.splits for each in split.source["files"]]
    listed += [(held_out_file(split.name), split.held_out) for split in plan.splits]
    for name, sha256 in listed:
        if sha256 is not None and re.fullmatch(PLANNING, name):
            for wrong in _wrong_bytes(store, name, sha256, "the plan"):
                yield replace(wrong, reason=f"{wrong.reason}; only --overwrite, which begins anew, writes it again")


def _wrong_shards(store: Store, plan: Plan) -> Iterator[WrongFile]:
    """The files that `load_dataset` takes for shards, by their names, and that are none."""
    shards = {shard.file for shard in plan.shards()}
    for pattern in places_of(plan).values():
        before, _, after = pattern.rpartition("*")
        for name in store.sizes(before.rpartition("/")[0]):
            own = name.removeprefix(before).removesuffix(after)
            if name == f"{before}{own}{after}" and "/" not in own and name not in shards:
                yield WrongFile(file=name, reason="it is no shard of the plan, and load_dataset would take it for one")


def _look(store: Store, plan: Plan, shard: Shard) -> tuple[Receipt | None, list[WrongFile]]:
    """The receipt of a shard, if there is one, and what is wrong with it or its shard."""
    try:
        receipt = read_receipt(store, shard, plan)
    except FileNotFoundError:
        return None, [WrongFile(file=shard.receipt, reason="it is missing")]
    except DataError as error:
        return None, [WrongFile(file=shard.receipt, reason=str(error))]
    return receipt, list(_wrong_bytes(store, shard.file, receipt.sha256, "its receipt"))


def _wrong_bytes(store: Store, name: str, sha256: str, who: str) -> Iterator[WrongFile]:
    try:
        found = store.sha256(name)
    except FileNotFoundError:
        yield WrongFile(file=name, reason="it is missing")
    except DataError as error:
        yield WrongFile(file=name, reason=str(error))
    else:
        if found != sha256:
            yield WrongFile(file=name, reason=f"its sha256 is {found[:12]}, and {who} says {sha256[:12]}")
