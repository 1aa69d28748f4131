"""How long the bookkeeping of 10^9 images takes: opening a plan of 15,259 shards, reading receipts, assembling them.

    python scripts/bench_plan.py [--images 1000000000] [--folder /tmp/plan]

Makes the codes folder of so many images with receipts and empty shards of the right names in place of 0.6 TB of codes:
the plan names tar files of 10,000 images each, as such sets have them. Nothing is encoded.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import datasets

from vqtok.codes.assemble import assemble
from vqtok.codes.plan import Plan, Request, SplitPlan, read_plan
from vqtok.codes.receipt import BadImage, Receipt, read_receipts
from vqtok.codes.spec import CodesSpec
from vqtok.store import Store

T = TypeVar("T")
IN_A_TAR = 10_000
FINGERPRINT = "a" * 64


def make_plan(images: int) -> Plan:
    """Images in tar files on S3, which lie in the plan with a mark for every 1,024 rows."""
    files = []
    for first in range(0, images, IN_A_TAR):
        rows = min(IN_A_TAR, images - first)
        marks = [[row, row * 31_000] for row in range(0, rows, 1024)]
        path = f"s3://bucket/images/train-{first // IN_A_TAR:06d}.tar"
        files.append({"path": path, "bytes": rows * 31_000, "rows": rows, "marks": marks})
    columns = {"__key__": datasets.Value("string")}
    features = datasets.Features({"image": datasets.Image(decode=False), **columns})
    source = {
        "kind": "tar",
        "name": "s3://bucket/images/train-*.tar",
        "split": "train",
        "image_column": "image",
        "features": features.to_dict(),
        "root": {"folder": None, "follow_links": False},
        "streaming": False,
        "files": files,
    }
    split = SplitPlan(name="train", rows=images, source=source, columns=datasets.Features(columns).to_dict())
    spec = CodesSpec(grid=(16, 16), codebook_size=16384, num_codebooks=1, fingerprint=FINGERPRINT)
    request = Request(dataset=source["name"], fingerprint=FINGERPRINT)
    return Plan(request=request, spec=spec, splits=(split,))


def write_folder(plan: Plan, folder: Path) -> None:
    """The plan, and of every shard an empty file and a receipt with two bad images."""
    store = Store(folder)
    plan.write(store)
    for shard in plan.shards():
        file, receipt = folder / shard.file, folder / shard.receipt
        file.parent.mkdir(parents=True, exist_ok=True)
        receipt.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        bad = tuple(BadImage(row=shard.start + row, name=f"row {row}", reason="cut short") for row in range(2))
        rows = shard.stop - shard.start - len(bad)
        made = Receipt(plan=plan.digest, shard=shard.name, rows=rows, bytes=0, sha256="b" * 64, bad=bad)
        receipt.write_text(json.dumps(asdict(made)))  # without waiting for the disk


def timed(what: str, do: Callable[[], T]) -> T:
    """Do it, and print how long it took."""
    begin = time.perf_counter()
    done = do()
    print(f"{what:<40} {time.perf_counter() - begin:8.2f} s", flush=True)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10**9)
    parser.add_argument("--folder", type=Path, help="where to work; by default a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)) / "codes"
        plan = make_plan(arguments.images)
        timed(f"write {plan.num_shards:,} receipts", lambda: write_folder(plan, folder))
        store = Store(folder)
        print(f"plan.json: {(folder / 'plan.json').stat().st_size:,} bytes")
        opened = timed("open the plan", lambda: read_plan(store))
        assert opened is not None and opened.digest == plan.digest
        found = timed("read all receipts", lambda: list(read_receipts(store, opened)))
        receipts = {shard.name: receipt for shard, receipt in found if receipt is not None}
        assert len(receipts) == plan.num_shards
        timed("assemble the dataset", lambda: assemble(opened, store, receipts))


if __name__ == "__main__":
    main()
