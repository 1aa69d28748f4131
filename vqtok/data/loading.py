"""Images as batches of uint8 pixels: decoded once where they fit into memory, by worker processes where they do not.

The order of training images is a pure function of (seed, step), so that a run that stops goes on with the very batch
that would have come next. Nothing here draws from torch's global random numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
from tqdm import tqdm

from vqtok.data.images import image_array
from vqtok.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from vqtok.data.sources import ImageSource

__all__ = ["ImageDataset", "ordered_batches", "read_images", "to_pixels", "training_batches", "training_order"]

MEMORY_LIMIT = 2 << 30  # bytes of decoded pixels: the whole of CIFAR-10 takes 0.18 GB, ImageNet at 32 x 32 3.9 GB
CHUNK = 512  # rows that are read from Arrow and handed to the threads at a time
DECODING_THREADS = min(8, os.cpu_count() or 1)  # Pillow decodes and resizes without holding Python's lock,
SMALL_FILE = (
    16 << 10
)  # but below 16 kB Pillow's own Python is most of the work and threads only get in each other's way

Batch = dict[str, Tensor]


def to_pixels(pixels: Tensor) -> Tensor:
    """uint8 0..255 to float32 in [-1, 1], on the device that the pixels are on."""
    return pixels.to(torch.float32).div_(127.5).sub_(1.0)


def read_images(
    source: ImageSource,
    indices: Sequence[int],
    *,
    image_size: tuple[int, int],
    num_channels: int,
    resample: str = "bicubic",
) -> tuple[npt.NDArray[np.uint8], list[int], dict[int, DataError]]:
    """Decode some rows of a source and keep apart those that are broken.

    Returns:
        The pixels of the good rows, uint8 (n, C, H, W); their indices, in the order of `indices`; and by index the
        error of each broken row, whose message names the row and its file.
    """
    cells = source.encoded(indices)

    def decode(index: int, cell: dict[str, Any]) -> npt.NDArray[np.uint8] | DataError:
        try:
            name = source.row_name(index, cell)
            data = source.image_data(cell, name)
            return image_array(data, num_channels=num_channels, size=image_size, resample=resample, name=name)
        except DataError as error:
            return error

    if _threads_help(cells):
        with ThreadPoolExecutor(DECODING_THREADS) as pool:
            decoded = list(pool.map(decode, indices, cells))
    else:
        decoded = list(map(decode, indices, cells))

    broken = {index: result for index, result in zip(indices, decoded, strict=True) if isinstance(result, DataError)}
    good = [result for result in decoded if not isinstance(result, DataError)]
    pixels = np.stack(good) if good else np.empty((0, num_channels, *image_size), dtype=np.uint8)
    return pixels, [index for index in indices if index not in broken], broken


def _threads_help(cells: list[dict[str, Any]]) -> bool:
    if get_worker_info() is not None or DECODING_THREADS == 1 or len(cells) < 2:
        return False  # the processes of a DataLoader already share the cores
    return any(cell["bytes"] is None for cell in cells) or sum(len(cell["bytes"]) for cell in cells) > SMALL_FILE * len(
        cells
    )


class ImageDataset(Dataset[Batch]):
    """The images of a source, all brought to one size; a map-style dataset for `torch.utils.data.DataLoader`.

    Args:
        source: where the images come from.
        image_size: (H, W).
        num_channels: 1 (grey) or 3 (RGB).
        resample: "bicubic", "bilinear", "lanczos" or "nearest".
        memory_limit: bytes of decoded pixels up to which everything is decoded now, once, into one tensor; above it
            each batch is decoded when it is asked for.

    Raises:
        DataError: an image cannot be decoded; the message names it. Where everything is decoded now, it is raised now.
    """

    def __init__(
        self,
        source: ImageSource,
        *,
        image_size: tuple[int, int],
        num_channels: int,
        resample: str = "bicubic",
        memory_limit: int = MEMORY_LIMIT,
    ) -> None:
        height, width = image_size
        self.source = source
        self.image_size = (height, width)
        self.num_channels = num_channels
        self.resample = resample
        labels = source.labels()
        self.labels = None if labels is None else torch.from_numpy(labels)  # int64 (N,)
        fits = len(source) * num_channels * height * width <= memory_limit
        self.pixels = self._decode_all() if fits else None  # uint8 (N, C, H, W)

    @property
    def in_memory(self) -> bool:
        """Whether the pixels of every image are already decoded."""
        return self.pixels is not None

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Batch:
        """One image: pixels uint8 (C, H, W) and, where there are labels, its label as an int64 scalar."""
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Several images: pixels uint8 (B, C, H, W) and, where there are labels, labels int64 (B,)."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        if self.pixels is None:
            batch = {"pixels": torch.from_numpy(self._decode(index.tolist()))}
        else:
            batch = {"pixels": self.pixels.index_select(0, index)}
        if self.labels is not None:
            batch["labels"] = self.labels.index_select(0, index)
        return batch

    def _decode(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        pixels, _, broken = read_images(
            self.source,
            indices,
            image_size=self.image_size,
            num_channels=self.num_channels,
            resample=self.resample,
        )
        for error in broken.values():
            raise error
        return pixels

    def _decode_all(self) -> Tensor:
        total = len(self.source)
        pixels = torch.empty((total, self.num_channels, *self.image_size), dtype=torch.uint8)
        starts = tqdm(  # silent where it is quick, and where nobody watches
            range(0, total, CHUNK),
            desc=f"decoding {self.source.name}",
            unit_scale=CHUNK,
            delay=2.0,
            disable=None,
            leave=False,
        )
        for start in starts:
            rows = range(start, min(start + CHUNK, total))
            pixels[rows.start : rows.stop] = torch.from_numpy(self._decode(rows))
        return pixels


def training_batches(
    images: ImageDataset,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
) -> Iterator[Batch]:
    """Shuffled batches without end, the first of them that of step `start_step`.

    Epoch e is permuted by a generator seeded from (seed, e). A step takes the next batch_size * world_size images, of
    which rank r gets the r-th part; images that do not fill a whole step are left out of that epoch. The batch of a
    step depends on nothing but the arguments, and earlier ones are skipped without being decoded.

    Args:
        batch_size: images per process.
        num_workers: processes that decode; not used where the images are in memory.

    Raises:
        DataError: fewer images than one step takes.
    """
    if batch_size < 1:
        raise ConfigurationError(f"batch_size must be at least 1, got {batch_size}")
    if len(images) < batch_size * world_size:
        processes = f" on each of {world_size} processes" if world_size > 1 else ""
        raise DataError(
            f"{images.source.name} has {len(images)} images for training, fewer than one batch of "
            f"{batch_size}{processes}; give more images or a smaller batch size"
        )
    order = training_order(
        len(images), batch_size=batch_size, seed=seed, start_step=start_step, rank=rank, world_size=world_size
    )
    return _batches(images, order, num_workers)


def training_order(
    num_images: int, *, batch_size: int, seed: int, start_step: int = 0, rank: int = 0, world_size: int = 1
) -> Iterator[list[int]]:
    """The indices behind `training_batches`, without end."""
    per_step = batch_size * world_size
    epoch, step = divmod(start_step, num_images // per_step)
    while True:
        order = _permutation(num_images, seed, epoch)
        for start in range(step * per_step, num_images - per_step + 1, per_step):
            first = start + rank * batch_size
            yield order[first : first + batch_size].tolist()
        epoch, step = epoch + 1, 0


def ordered_batches(images: ImageDataset, batch_size: int, num_workers: int = 0) -> Iterator[Batch]:
    """Every image once and in order; the last batch may be short."""
    if batch_size < 1:
        raise ConfigurationError(f"batch_size must be at least 1, got {batch_size}")
    total = len(images)
    order = (list(range(start, min(start + batch_size, total))) for start in range(0, total, batch_size))
    return _batches(images, order, num_workers)


def _permutation(count: int, seed: int, epoch: int) -> Tensor:
    mixed = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
    return torch.randperm(count, generator=torch.Generator().manual_seed(mixed))


def _batches(images: ImageDataset, order: Iterable[list[int]], num_workers: int) -> Iterator[Batch]:
    if images.in_memory or num_workers == 0:
        for indices in order:
            yield images.__getitems__(indices)
        return
    loader: DataLoader[Any] = DataLoader(
        _Answers(images),
        batch_sampler=order,  # any iterable of lists of indices will do
        num_workers=num_workers,
        collate_fn=_as_is,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4,
        generator=torch.Generator(),  # otherwise the loader draws a seed from the global one
    )
    for answer in loader:
        if isinstance(answer, DataError):
            raise answer
        yield answer


class _Answers(Dataset[Any]):
    """Gives a DataError back instead of raising it: a worker process would wrap its message in a traceback."""

    def __init__(self, images: ImageDataset) -> None:
        self.images = images

    def __getitems__(self, indices: list[int]) -> Batch | DataError:
        try:
            return self.images.__getitems__(indices)
        except DataError as error:
            return error


def _as_is(batch: Any) -> Any:
    return batch
