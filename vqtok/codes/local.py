"""Images to codes on this machine: a plan, its missing shards one after another, the dataset once all are done."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from vqtok.batches import check_batch_size
from vqtok.codes.assemble import assemble, is_assembled
from vqtok.codes.binding import CodeSet
from vqtok.codes.encoder import Encoder
from vqtok.codes.plan import SHARD_ROWS, Plan, Request, Shard, read_plan
from vqtok.codes.planning import check_sidecar, make_plan, open_planned_rows
from vqtok.codes.reader import load_codes
from vqtok.codes.receipt import BadImage, Receipt, read_receipts
from vqtok.codes.shard import Job, tokenize_shard
from vqtok.codes.spec import CodesSpec
from vqtok.codes.workers import WorkerOptions, tokenize_in_processes
from vqtok.codes.workplace import claimed
from vqtok.errors import BadImagesError, ConfigurationError
from vqtok.names import findable, is_gone
from vqtok.store import Store
from vqtok.text import counted

if TYPE_CHECKING:
    from vqtok.tokenizer import VQTokenizer

__all__ = ["Tokenized", "tokenize_dataset", "tokenize_images"]

BATCH_SIZE = 64
MAX_BAD_SHARE = 0.05

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Tokenized:
    """What came of it.

    Attributes:
        images: by split how many images have codes.
        bad: the images that could not be read.
        made: shards that this call made.
        resumed: shards that were there already.
    """

    images: dict[str, int]
    bad: tuple[BadImage, ...]
    made: int
    resumed: int


def tokenize_dataset(dataset: str | Path, tokenizer: VQTokenizer, out: str | Path, **options: Any) -> CodeSet:
    """Turn images into a codes folder, as `tokenize_images` does, and load it.

    Images that cannot be read are left out, logged, and listed in the folder's `bad_images.parquet`.

    Returns:
        What is now in `out`: a `Dataset`, or a `DatasetDict` where there are several splits.
    """
    done = tokenize_images(dataset, tokenizer, out, planned=_log_notes, **options)
    if done.bad:
        total = sum(done.images.values()) + len(done.bad)
        names = ", ".join(image.name for image in done.bad[:20])
        logger.warning("%d of %d images could not be read and are left out: %s", len(done.bad), total, names)
    return load_codes(out)


def _log_notes(plan: Plan, notes: Sequence[str]) -> None:
    for note in notes:
        logger.info("%s", note)


def tokenize_images(
    dataset: str | Path,
    tokenizer: VQTokenizer,
    out: str | Path,
    *,
    split: str | None = None,
    dataset_config: str | None = None,
    image_column: str | None = None,
    revision: str | None = None,
    columns: Sequence[str] | None = None,
    streaming: bool = False,
    batch_size: int = BATCH_SIZE,
    precision: str = "float32",
    format: str = "arrow",
    shard_rows: int = SHARD_ROWS,
    num_processes: int = 1,
    on_error: str = "skip",
    max_bad_share: float = MAX_BAD_SHARE,
    overwrite: bool = False,
    progress: bool = True,
    planned: Callable[[Plan, Sequence[str]], None] = lambda plan, notes: None,
) -> Tokenized:
    """Turn images into a codes folder, every good image exactly once, or go on where the same call was stopped.

    Every grid is the one that `tokenizer.tokenize` gives for that image.

    Args:
        dataset: whatever `vqtok.data.opening.open_rows` opens: a folder, a file, a Hub id, `mnist-mini`, ...
        tokenizer: on whichever device it should work.
        out: the codes folder: a path, or a URL of fsspec. It loads once all of it is there.
        split: one split; by default every split that the dataset has.
        dataset_config: which configuration of a dataset that has several.
        image_column: where the images are, where the feature types do not decide.
        revision: branch, tag or commit of a dataset on the Hub.
        columns: columns that are kept beside the codes, ["all"] for all but those that hold files; by default file
            names and labels, and of metadata beside images all.
        streaming: read files of the Hub where they are, rather than download them.
        batch_size: images the tokenizer gets at once.
        precision: "float32", or "bfloat16" or "float16" by autocast.
        format: "arrow", or "parquet" for sharing, which `load_from_disk` does not read.
        shard_rows: images of a shard, the unit that is done or not done.
        num_processes: processes that work side by side, each on a device of its own where there are several GPUs. One
            works in this process.
        on_error: "skip" leaves out images that cannot be read, "stop" ends with the first.
        max_bad_share: with more images than this share that cannot be read the set is not finished.
        overwrite: begin anew: what is in `out` goes once the images are listed, if vqtok wrote it.
        progress: show a bar on a terminal.
        planned: called before the first image is encoded, with the plan and what the user should be told of the images,
            which is known where they are listed and not where a plan is gone on with.

    Raises:
        ConfigurationError: `out` holds something else or codes of another plan, or an argument makes no sense.
        DataError: no images, none that can be read, or a full disk.
        BadImagesError: more images that cannot be read than may be.
        HubError: the Hub does not have the dataset, or does not give it.
    """
    check_batch_size(batch_size)
    if on_error not in ("skip", "stop"):
        raise ConfigurationError(f"on_error must be skip or stop, got {on_error!r}")
    if num_processes < 1:
        raise ConfigurationError(f"num_processes must be at least 1, got {num_processes}")
    if not 0 <= max_bad_share <= 1:
        raise ConfigurationError(f"max_bad_share must be from 0 to 1, got {max_bad_share}")
    spec = CodesSpec.from_tokenizer(tokenizer)
    request = Request(
        dataset=findable(str(dataset)),
        split=split,
        dataset_config=dataset_config,
        image_column=image_column,
        revision=revision,
        columns=tuple(columns) if columns is not None else None,
        fingerprint=spec.fingerprint,
        precision=precision,
        batch_size=batch_size,
        format=format,
        shard_rows=shard_rows,
    )
    encoder = Encoder(tokenizer, precision)
    store = Store(out)
    with claimed(store, overwrite=overwrite):
        plan = None if overwrite else read_plan(store)
        notes: tuple[str, ...] = ()
        if plan is None:
            plan, notes = make_plan(
                request, spec, str(dataset), store, streaming=streaming, overwrite=overwrite, progress=progress
            )
        else:
            request = _named_as_before(request, plan)
            check_sidecar(plan, store)
        plan.check(request, store.place)
        planned(plan, notes)
        work = _Work(plan=plan, stop_on_error=on_error == "stop", max_bad_share=max_bad_share)
        with tqdm(total=plan.rows, desc="tokenizing", unit=" images", disable=None if progress else True) as bar:
            missing = []
            for shard, receipt in read_receipts(store, plan):
                if receipt is None:
                    missing.append(shard)
                else:
                    work.add(shard, receipt)
                    bar.update(shard.stop - shard.start)
            for shard, receipt in _make(missing, plan, store, encoder, work.stop_on_error, num_processes, bar.update):
                work.add(shard, receipt)
        if missing or not is_assembled(plan, store):
            assemble(plan, store, work.receipts)
    return Tokenized(images=work.images, bad=tuple(work.bad), made=len(missing), resumed=plan.num_shards - len(missing))


def _named_as_before(request: Request, plan: Plan) -> Request:
    """The request with the dataset as the plan calls it, where that was a folder of this name and is gone."""
    before = plan.request.dataset
    same = is_gone(before) and os.path.abspath(os.path.expanduser(request.dataset)) == before
    return request.model_copy(update={"dataset": before}) if same else request


def _make(
    shards: Sequence[Shard],
    plan: Plan,
    store: Store,
    encoder: Encoder,
    stop_on_error: bool,
    num_processes: int,
    report: Callable[[int], None],
) -> Iterator[tuple[Shard, Receipt]]:
    """Make shards in this process, or by several others that load the tokenizer from a folder."""
    if num_processes == 1 or not shards:
        rows = open_planned_rows(plan, store)
        job = Job(plan=plan, store=store, encoder=encoder, rows=rows, stop_on_error=stop_on_error, report=report)
        yield from ((shard, tokenize_shard(shard, job)) for shard in shards)
        return
    with tempfile.TemporaryDirectory(prefix="vqtok-") as folder:
        encoder.tokenizer.save_pretrained(folder)
        options = [
            WorkerOptions(
                place=store.place,
                tokenizer=folder,
                revision=None,
                device=device,
                threads=max(1, torch.get_num_threads() // num_processes) if device == "cpu" else None,
                stop_on_error=stop_on_error,
            )
            for device in devices_for(encoder.device, min(num_processes, len(shards)))
        ]
        yield from tokenize_in_processes(shards, options, report)


def devices_for(device: torch.device, number: int) -> list[str]:
    """The devices of so many processes: GPUs of the machine in turn, from the given one on, else all the same."""
    if device.type != "cuda":
        return [str(device)] * number
    count, first = torch.cuda.device_count(), device.index or 0
    return [f"cuda:{(first + index) % count}" for index in range(number)]


@dataclass(kw_only=True)
class _Work:
    """What is known of the shards that are done."""

    plan: Plan
    stop_on_error: bool
    max_bad_share: float
    images: dict[str, int] = field(default_factory=dict)
    bad: list[BadImage] = field(default_factory=list)
    receipts: dict[str, Receipt] = field(default_factory=dict)

    def add(self, shard: Shard, receipt: Receipt) -> None:
        """Note a shard; refuses to go on with too many bad images, or any where none may be.

        Raises:
            BadImagesError: says how many, and names the first.
        """
        self.images[shard.split] = self.images.get(shard.split, 0) + receipt.rows
        self.bad += receipt.bad
        self.receipts[shard.name] = receipt
        share = 0 if self.stop_on_error else self.max_bad_share
        if len(self.bad) > share * self.plan.rows:
            first = "; ".join(image.reason for image in self.bad[:3])
            raise BadImagesError(
                f"{len(self.bad):,} of {counted(self.plan.rows, 'image')} cannot be read, more than the share of "
                f"{share:.3g} that may be left out: {first}; allow more (--max-bad-share) to go on without them, or "
                "mend them and begin anew (--overwrite)"
            )
