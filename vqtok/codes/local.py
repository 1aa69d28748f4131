"""Images to codes on this machine: threads read and decode ahead while the tokenizer works."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from tqdm import tqdm

from vqtok.batches import check_batch_size
from vqtok.codes.reader import CodeSet, load_codes, read_broken
from vqtok.codes.spec import SIDECAR, CodesSpec
from vqtok.codes.writer import SplitWriter, own_files, write_sidecar, write_splits
from vqtok.data import ImageSource, open_all, read_images, to_pixels
from vqtok.errors import DataError
from vqtok.folders import check_free, new_folder

if TYPE_CHECKING:
    from vqtok.tokenizer import VQTokenizer

__all__ = ["file_columns", "tokenize_dataset", "tokenize_sources"]

# Images. On two CPU cores 16 to 256 are about as quick. A batch changes the last bits of a latent (2e-6 on CPU), and
# so a code only where two are all but equally near: 0 of the 256,000 codes of 4,000 CIFAR-10 images differed from
# those of each image alone (random network, codes drawn from latents).
BATCH_SIZE = 64
BATCHES_AHEAD = 2  # decoded and waiting, so that neither threads nor tokenizer stand still

logger = logging.getLogger(__name__)


def tokenize_dataset(
    dataset: str | Path,
    tokenizer: VQTokenizer,
    out: str | Path,
    *,
    split: str | None = None,
    dataset_config: str | None = None,
    image_column: str | None = None,
    revision: str | None = None,
    batch_size: int = BATCH_SIZE,
    overwrite: bool = False,
    progress: bool = True,
) -> CodeSet:
    """Turn images into a codes folder.

    Every grid is the one that `tokenizer.tokenize` gives for that image. The other columns of the dataset are carried
    along, save those that hold files. Images that cannot be read are left out, logged, and listed in the folder's
    `codes.json` under "broken".

    Args:
        dataset: whatever `vqtok.data.open_all` opens: a folder, a file, a Hub id, `mnist-mini`, `mnist`, `cifar10`.
        tokenizer: on whichever device it should work.
        out: the codes folder to write, whole or not at all.
        split: one split; by default every split that the dataset has.
        dataset_config: which configuration of a dataset that has several.
        image_column: where the images are, where the feature types do not decide.
        revision: branch, tag or commit of a dataset on the Hub.
        batch_size: images the tokenizer gets at once.
        overwrite: replace an older codes folder at `out`, once the new one is whole.
        progress: show a bar on a terminal.

    Returns:
        What is now in `out`: a `Dataset`, or a `DatasetDict` where there are several splits.

    Raises:
        ConfigurationError: `out` holds something else, or an argument makes no sense.
        DataError: no images, none that can be read, or a full disk.
    """
    check_free(Path(out), marker=SIDECAR, ours=own_files, overwrite=overwrite)
    sources = open_all(str(dataset), split=split, image_column=image_column, revision=revision, config=dataset_config)
    codes = tokenize_sources(sources, tokenizer, out, batch_size=batch_size, overwrite=overwrite, progress=progress)
    if columns := file_columns(sources):
        logger.warning("columns that hold files are left out of the codes folder: %s", ", ".join(columns))
    if broken := read_broken(out):
        total = sum(len(source) for source in sources.values())
        logger.warning("%d of %d images could not be read and are left out: %s", len(broken), total, ", ".join(broken))
    return codes


def file_columns(sources: Mapping[str, ImageSource]) -> list[str]:
    """Columns beside the images that hold images, sounds or other files, or paths to them.

    They are never carried into a codes folder: a dataset from elsewhere could name any file of this machine.
    """
    columns = {
        column: None
        for source in sources.values()
        for column, feature in source.dataset.features.items()
        if column != source.image_column and _holds_files(feature)
    }
    return list(columns)


def _holds_files(feature: Any) -> bool:
    if isinstance(feature, dict):
        return {"bytes", "path"} <= set(feature) or any(map(_holds_files, feature.values()))
    if isinstance(feature, datasets.List | datasets.LargeList):
        return _holds_files(feature.feature)
    return hasattr(feature, "embed_storage")  # Image, Audio, Video and their like


def tokenize_sources(
    sources: Mapping[str, ImageSource],
    tokenizer: VQTokenizer,
    out: str | Path,
    *,
    batch_size: int = BATCH_SIZE,
    overwrite: bool = False,
    progress: bool = True,
) -> CodeSet:
    """Turn opened splits into a codes folder; arguments, result and errors are those of `tokenize_dataset`."""
    check_batch_size(batch_size)
    spec = CodesSpec.from_tokenizer(tokenizer)
    total = sum(len(source) for source in sources.values())
    with (
        new_folder(Path(out), marker=SIDECAR, ours=own_files, overwrite=overwrite) as folder,
        tqdm(total=total, desc="tokenizing", unit=" images", disable=None if progress else True) as bar,
    ):
        broken: list[str] = []
        for split, source in sources.items():
            place = folder / split if len(sources) > 1 else folder
            broken += _write_split(place, source, tokenizer, spec, batch_size=batch_size, bar=bar)
        if len(sources) > 1:
            write_splits(folder, list(sources))
        write_sidecar(folder, spec, broken)
    return load_codes(out)


def _write_split(
    folder: Path, source: ImageSource, tokenizer: VQTokenizer, spec: CodesSpec, *, batch_size: int, bar: tqdm[Any]
) -> list[str]:
    """Write the codes of one split; give the names of the images that could not be read."""
    others = source.dataset.remove_columns([source.image_column, *file_columns({source.split: source})])
    rows = others.with_format("arrow")
    broken: list[str] = []
    with SplitWriter(
        folder, spec, features=others.features, split=source.split, source=source.dataset._fingerprint
    ) as writer:
        for batch in _read_ahead(source, tokenizer, batch_size):
            if batch.good:
                # Scaled on the CPU as the image processor does: a GPU divides by a constant with another last bit.
                pixels = to_pixels(torch.from_numpy(batch.pixels)).to(tokenizer.device)
                with torch.inference_mode():
                    codes = tokenizer.encode(pixels)
                writer.write(codes.cpu().numpy(), _columns(rows, batch))
            broken += [_name(source, index) for index in batch.broken]
            bar.update(len(batch.indices))
            if batch.indices.stop == len(source) and not writer.rows:
                error = next(iter(batch.broken.values()))
                raise DataError(f"no image of {source.name} can be read, such as: {error}")
    return broken


@dataclass(frozen=True, kw_only=True)
class _Batch:
    indices: range
    pixels: npt.NDArray[np.uint8]  # (n, C, H, W), the good ones
    good: list[int]
    broken: dict[int, DataError]


def _read_ahead(source: ImageSource, tokenizer: VQTokenizer, batch_size: int) -> Iterator[_Batch]:
    """Decode batches in order, up to `BATCHES_AHEAD` of them before they are asked for."""
    config = tokenizer.config

    def read(indices: range) -> _Batch:
        pixels, good, broken = read_images(
            source, indices, image_size=config.size, num_channels=config.num_channels, resample=config.resample
        )
        return _Batch(indices=indices, pixels=pixels, good=good, broken=broken)

    pool = ThreadPoolExecutor(1)  # read_images spreads each batch over threads of its own
    waiting: deque[Future[_Batch]] = deque()
    try:
        for start in range(0, len(source), batch_size):
            waiting.append(pool.submit(read, range(start, min(start + batch_size, len(source)))))
            if len(waiting) > BATCHES_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _columns(rows: datasets.Dataset, batch: _Batch) -> pa.Table | None:
    """The source's other columns for the images of a batch that could be read."""
    if not rows.column_names:
        return None
    table: pa.Table = rows[batch.indices.start : batch.indices.stop]
    return table.take(pa.array([index - batch.indices.start for index in batch.good])) if batch.broken else table


def _name(source: ImageSource, index: int) -> str:
    """The file of an image, relative to its folder where the source says so; else its row."""
    if "file_name" in source.dataset.column_names and source.image_column != "file_name":
        return str(source.dataset[index]["file_name"])
    return source.row_name(index, source.encoded([index])[0])
