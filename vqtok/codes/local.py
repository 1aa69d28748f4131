"""Images to codes: a plan, its missing shards by whichever driver, the dataset once all are done."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from vqtok.codes.assemble import assemble, wrong_files
from vqtok.codes.binding import CodeSet
from vqtok.codes.drivers import Driver, Work, on_this_machine
from vqtok.codes.encoder import Encoder
from vqtok.codes.launch import Launch, is_launched
from vqtok.codes.options import TokenizeOptions
from vqtok.codes.origin import check_origin
from vqtok.codes.plan import Plan, Request, read_plan
from vqtok.codes.planning import make_plan, make_request
from vqtok.codes.ray_cluster import by_actors, connected
from vqtok.codes.reader import load_codes
from vqtok.codes.receipt import read_receipts
from vqtok.codes.sidecar import check_sidecar
from vqtok.codes.spec import CodesSpec
from vqtok.codes.tally import Tally, Tokenized
from vqtok.codes.workers import unseen
from vqtok.codes.workplace import claimed
from vqtok.errors import ConfigurationError
from vqtok.names import is_gone
from vqtok.store import Store

if TYPE_CHECKING:
    from vqtok.tokenizer import VQTokenizer

__all__ = ["Tokenized", "tokenize_dataset", "tokenize_images"]

logger = logging.getLogger(__name__)


def tokenize_dataset(dataset: str | Path, tokenizer: VQTokenizer, out: str | Path, **options: Any) -> CodeSet:
    """Turn images into a codes folder, as `tokenize_images` does, and load it.

    Images that cannot be read are left out, logged, and listed in the folder's `bad_images.parquet`.

    Args:
        options: those of `TokenizeOptions`, such as `split="train"` or `views="ten-crop"`, and `progress`.

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
    progress: bool = True,
    planned: Callable[[Plan, Sequence[str]], None] = lambda plan, notes: None,
    **options: Any,
) -> Tokenized:
    """Turn images into a codes folder, every good image exactly once, or go on where the same call was stopped.

    Every grid is the one that `tokenizer.tokenize` gives for that image, unless `views` or `background` ask for others.

    Args:
        dataset: whatever `vqtok.data.opening.open_rows` opens: a folder, a file, a Hub id, `mnist-mini`, ...
        tokenizer: on whichever device it should work.
        out: the codes folder: a path, or a URL of fsspec. It loads once all of it is there.
        progress: show a bar on a terminal.
        planned: called before the first image is encoded, with the plan and what the user should be told of the images,
            which is known where they are listed and not where a plan is gone on with.
        options: those of `TokenizeOptions`, such as `split="train"` or `views="ten-crop"`. What is not given has its
            default.

    A single process is this one where it has up to 65,536 images to encode and the last call did not crash; else it is
    another, so that an image that crashes it can be found and left out. On this machine several processes of
    `accelerate launch` or `torchrun` share the work.

    Raises:
        ConfigurationError: `out` holds something else or codes of another plan, or an option makes no sense.
        DataError: no images, none that can be read, or a full disk.
        BadImagesError: more images that cannot be read than may be.
        HubError: the Hub does not have the dataset, or does not give it.
    """
    asked = TokenizeOptions(**options)
    _check_launch(asked)
    spec = CodesSpec.from_tokenizer(tokenizer)
    request = make_request(asked, str(dataset), spec)
    call = _Call(
        dataset=str(dataset),
        options=asked,
        request=request,
        spec=replace(spec, preprocessing=spec.preprocessing | request.preprocessing),
        encoder=Encoder(tokenizer, asked.precision),
        store=Store(out),
        progress=progress,
    )
    if asked.executor == "ray":
        address, device, number = asked.ray_address or "auto", asked.ray_device, asked.num_processes
        with connected(address, device=device, num_processes=number) as cluster:
            drive = partial(by_actors, cluster=cluster)
            return call.lead(drive, lambda plan, notes: planned(plan, (*notes, str(cluster))))
    if not is_launched():
        return call.lead(partial(on_this_machine, number=asked.num_processes or 1), planned)
    launch = Launch()
    with launch.failing_together():
        if launch.rank:
            return call.follow(launch)
        made = call.lead(launch.lead, planned)
        launch.end()
        return made


def _check_launch(options: TokenizeOptions) -> None:
    """Refuse to start processes where this one is among those of a launcher."""
    if is_launched() and (options.executor == "ray" or (options.num_processes or 1) > 1):
        raise ConfigurationError(
            "accelerate launch and torchrun start the processes themselves: leave out --executor and --num-processes, "
            "or start vqtok without them"
        )


@dataclass(frozen=True, kw_only=True)
class _Call:
    """What a call was asked for, checked."""

    dataset: str
    options: TokenizeOptions
    request: Request
    spec: CodesSpec
    encoder: Encoder
    store: Store
    progress: bool

    def lead(self, drive: Driver, planned: Callable[[Plan, Sequence[str]], None]) -> Tokenized:
        """Make or read the plan, have a driver make what is missing, and assemble the dataset."""
        store, overwrite = self.store, self.options.overwrite
        with claimed(store, overwrite=overwrite) as died:
            plan = None if overwrite else read_plan(store)
            notes: tuple[str, ...] = ()
            if plan is None:
                how = {"streaming": self.options.streaming, "overwrite": overwrite, "progress": self.progress}
                plan, notes = make_plan(self.request, self.spec, self.dataset, store, **how)
            else:
                check_sidecar(plan.spec, store)
            plan.check(self._request(plan), store.place)
            check_origin(plan, store)
            planned(plan, notes)
            tally, missing = self._tally(plan), []
            hidden = None if self.progress else True  # None hides it where there is no terminal
            with tqdm(total=plan.rows, desc="tokenizing", unit=" images", disable=hidden) as bar:
                for shard, receipt in read_receipts(store, plan):
                    if receipt is None:
                        missing.append(shard)
                    else:
                        tally.add(shard, receipt)
                        bar.update(shard.stop - shard.start)
                for shard, receipt in drive(missing, self._work(plan, bar.update, died)):
                    tally.add(shard, receipt)
            if missing or any(wrong_files(plan, store, tally.receipts)):
                assemble(plan, store, tally.receipts)
        return tally.result(made=len(missing))

    def follow(self, launch: Launch) -> Tokenized:
        """Make shards of the plan that the first process of a launch wrote, until the dataset is there."""
        names = launch.wait_for_plan()
        plan = read_plan(self.store)
        if plan is None:
            raise unseen(self.store.place)
        plan.check(self._request(plan), self.store.place)
        missing = [shard for shard in plan.shards() if shard.name in names]
        own, all_shards = self._tally(plan), self._tally(plan)
        for shard, receipt in launch.follow(missing, self._work(plan, lambda images: None, died=True)):
            own.add(shard, receipt)
        launch.wait_for_end()
        for shard, done in read_receipts(self.store, plan):
            assert done is not None
            all_shards.add(shard, done)
        return all_shards.result(made=len(missing))

    def _request(self, plan: Plan) -> Request:
        """The request with the dataset as the plan calls it, where that was a folder of this name and is gone."""
        before = plan.request.dataset
        same = is_gone(before) and os.path.abspath(os.path.expanduser(self.request.dataset)) == before
        return self.request.model_copy(update={"dataset": before}) if same else self.request

    def _tally(self, plan: Plan) -> Tally:
        return Tally(plan=plan, stop_on_error=self._stops, max_bad_share=self.options.max_bad_share)

    @property
    def _stops(self) -> bool:
        """Whether the first image that cannot be read ends the call."""
        return self.options.on_error == "stop"

    def _work(self, plan: Plan, report: Callable[[int], None], died: bool) -> Work:
        return Work(
            plan=plan,
            store=self.store,
            encoder=self.encoder,
            stop_on_error=self._stops,
            report=report,
            died_before=died,
        )
