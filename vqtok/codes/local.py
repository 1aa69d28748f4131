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

from vqtok.batches import check_batch_size
from vqtok.codes.assemble import assemble, wrong_files
from vqtok.codes.binding import CodeSet
from vqtok.codes.drivers import Driver, Work, on_this_machine
from vqtok.codes.encoder import Encoder
from vqtok.codes.launch import Launch, is_launched
from vqtok.codes.origin import check_origin
from vqtok.codes.plan import Plan, Request, read_plan
from vqtok.codes.planning import make_plan, rows_of_shard
from vqtok.codes.ray_cluster import by_actors, connected
from vqtok.codes.reader import load_codes
from vqtok.codes.receipt import read_receipts
from vqtok.codes.sidecar import check_sidecar
from vqtok.codes.spec import CodesSpec
from vqtok.codes.tally import Tally, Tokenized
from vqtok.codes.workers import unseen
from vqtok.codes.workplace import claimed
from vqtok.data.fitting import colour
from vqtok.data.views import Views
from vqtok.errors import ConfigurationError
from vqtok.names import findable, is_gone
from vqtok.store import Store

if TYPE_CHECKING:
    from vqtok.tokenizer import VQTokenizer

__all__ = ["Tokenized", "tokenize_dataset", "tokenize_images"]

BATCH_SIZE = 64
MAX_BAD_SHARE = 0.05

logger = logging.getLogger(__name__)


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
    images: bool = False,
    views: str | None = None,
    seed: int | None = None,
    background: str = "white",
    streaming: bool = False,
    batch_size: int = BATCH_SIZE,
    precision: str = "float32",
    format: str = "arrow",
    shard_rows: int | None = None,
    num_processes: int | None = None,
    executor: str = "local",
    ray_address: str | None = None,
    ray_device: str | None = None,
    on_error: str = "skip",
    max_bad_share: float = MAX_BAD_SHARE,
    overwrite: bool = False,
    progress: bool = True,
    planned: Callable[[Plan, Sequence[str]], None] = lambda plan, notes: None,
) -> Tokenized:
    """Turn images into a codes folder, every good image exactly once, or go on where the same call was stopped.

    Every grid is the one that `tokenizer.tokenize` gives for that image, unless `views` or `background` ask for others.

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
        images: keep the encoded images themselves beside their codes, in a column called as the source calls it.
        views: "center", "ten-crop" or "random:K", see `vqtok.data.views`: as many rows for each image, which share its
            number in the split as `image_id` and are told apart by `view`. By default an image has one row.
        seed: of random views; 0 where it is not given.
        background: what shows through transparent images: a colour's name, #rrggbb, or red,green,blue.
        streaming: read files of the Hub where they are, rather than download them.
        batch_size: images the tokenizer gets at once.
        precision: "float32", or "bfloat16" or "float16" by autocast.
        format: "arrow", or "parquet" for sharing, which `load_from_disk` does not read.
        shard_rows: rows of a shard, the unit that is done or not done, which is in memory as a whole; by default
            65,536, with the images themselves 4,096.
        num_processes: processes that work side by side, each on a device of its own where there are several GPUs. A
            single one is this process where it has up to 65,536 images to encode and the last call did not crash; else
            it is another, so that an image that crashes it can be found and left out. On Ray, see `ray_cluster`.
        executor: "local", on this machine, which with several processes of `accelerate launch` or `torchrun` is shared
            by them; or "ray", on the machines of a Ray cluster, all of which must see `out` and the images.
        ray_address: of the cluster; by default "auto", the one that this machine belongs to; "local" is one of its own.
        ray_device: "cuda" or "cpu", what an actor works on; by default a GPU where the cluster has any.
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
    if executor not in ("local", "ray"):
        raise ConfigurationError(f"executor must be local or ray, got {executor!r}")
    if num_processes is not None and num_processes < 1:
        raise ConfigurationError(f"num_processes must be at least 1, got {num_processes}")
    if ray_device not in (None, "cpu", "cuda"):
        raise ConfigurationError(f"device must be cpu or cuda on a Ray cluster, got {ray_device!r}")
    if executor == "local" and (ray_address is not None or ray_device is not None):
        raise ConfigurationError("--ray-address belongs to --executor ray: leave it out, or pass that too")
    if is_launched() and (executor == "ray" or (num_processes or 1) > 1):
        raise ConfigurationError(
            "accelerate launch and torchrun start the processes themselves: leave out --executor and --num-processes, "
            "or start vqtok without them"
        )
    if not 0 <= max_bad_share <= 1:
        raise ConfigurationError(f"max_bad_share must be from 0 to 1, got {max_bad_share}")
    plain = CodesSpec.from_tokenizer(tokenizer)
    request = Request(
        dataset=findable(str(dataset)),
        split=split,
        dataset_config=dataset_config,
        image_column=image_column,
        revision=revision,
        columns=tuple(columns) if columns is not None else None,
        images=images,
        views=views,
        seed=_seed(views, seed),
        background=colour(background),
        fingerprint=plain.fingerprint,
        precision=precision,
        batch_size=batch_size,
        format=format,
        shard_rows=rows_of_shard(shard_rows, plain, images=images),
    )
    call = _Call(
        dataset=str(dataset),
        request=request,
        spec=replace(plain, preprocessing=plain.preprocessing | request.preprocessing),
        encoder=Encoder(tokenizer, precision),
        store=Store(out),
        stop_on_error=on_error == "stop",
        max_bad_share=max_bad_share,
    )
    listing: dict[str, Any] = {"streaming": streaming, "overwrite": overwrite, "planned": planned}
    if executor == "ray":
        with connected(ray_address or "auto", device=ray_device, num_processes=num_processes) as cluster:
            told = listing | {"planned": lambda plan, notes: planned(plan, (*notes, str(cluster)))}
            return call.lead(partial(by_actors, cluster=cluster), progress=progress, **told)
    if not is_launched():
        return call.lead(partial(on_this_machine, number=num_processes or 1), progress=progress, **listing)
    launch = Launch()
    with launch.failing_together():
        if launch.rank:
            return call.follow(launch)
        made = call.lead(launch.lead, progress=progress, **listing)
        launch.end()
        return made


def _seed(views: str | None, seed: int | None) -> int:
    """The seed of a request.

    Raises:
        ConfigurationError: there is nothing random to seed.
    """
    if seed is not None and (views is None or Views.parse(views).kind != "random"):
        raise ConfigurationError(f"seed {seed} is for the views random:K, and they are {views or 'not asked for'}")
    return seed or 0


@dataclass(frozen=True, kw_only=True)
class _Call:
    """What a call was asked for, checked."""

    dataset: str
    request: Request
    spec: CodesSpec
    encoder: Encoder
    store: Store
    stop_on_error: bool
    max_bad_share: float

    def lead(
        self,
        drive: Driver,
        *,
        streaming: bool,
        overwrite: bool,
        progress: bool,
        planned: Callable[[Plan, Sequence[str]], None],
    ) -> Tokenized:
        """Make or read the plan, have a driver make what is missing, and assemble the dataset."""
        store = self.store
        with claimed(store, overwrite=overwrite) as died:
            plan = None if overwrite else read_plan(store)
            notes: tuple[str, ...] = ()
            if plan is None:
                listing = {"streaming": streaming, "overwrite": overwrite, "progress": progress}
                plan, notes = make_plan(self.request, self.spec, self.dataset, store, **listing)
            else:
                check_sidecar(plan.spec, store)
            plan.check(self._request(plan), store.place)
            check_origin(plan, store)
            planned(plan, notes)
            tally, missing = self._tally(plan), []
            with tqdm(total=plan.rows, desc="tokenizing", unit=" images", disable=None if progress else True) as bar:
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
        return Tally(plan=plan, stop_on_error=self.stop_on_error, max_bad_share=self.max_bad_share)

    def _work(self, plan: Plan, report: Callable[[int], None], died: bool) -> Work:
        return Work(
            plan=plan,
            store=self.store,
            encoder=self.encoder,
            stop_on_error=self.stop_on_error,
            report=report,
            died_before=died,
        )
