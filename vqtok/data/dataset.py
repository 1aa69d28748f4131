"""The images of a source as uint8 pixels of one size: decoded once where they fit into memory, else when asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NotRequired, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info
from tqdm import tqdm

from vqtok.data.images import image_array
from vqtok.data.stored import StoredImage
from vqtok.errors import DataError
from vqtok.text import counted

if TYPE_CHECKING:
    from vqtok.data.sources import ImageSource

__all__ = ["Batch", "ImageDataset", "UnreadableImage", "decode_images", "map_images", "read_images", "stacked"]

T = TypeVar("T")

MEMORY_LIMIT = 2 << 30  # bytes of decoded pixels: the whole of CIFAR-10 takes 0.18 GB, ImageNet at 32 x 32 3.9 GB
CHUNK = 512  # rows that are read from Arrow and handed to the threads at a time
DECODING_THREADS = min(8, os.cpu_count() or 1)  # Pillow decodes and resizes without holding Python's lock,
SMALL_FILE = 16 << 10  # but below 16 kB its own Python is most of the work, and threads only wait for each other


@dataclass(frozen=True, kw_only=True)
class UnreadableImage:
    """An image that was left out.

    Attributes:
        index: its row.
        reason: what is wrong with it, on one line that names it.
    """

    index: int
    reason: str


class Batch(TypedDict):
    """Some images of a source.

    Attributes:
        pixels: uint8 (B, C, H, W).
        index: int64 (B,), the row of each image.
        labels: int64 (B,), where the source has labels.
        skipped: the images that should have been among them but cannot be read.
    """

    pixels: Tensor
    index: Tensor
    labels: NotRequired[Tensor]
    skipped: list[UnreadableImage]


def read_images(
    source: ImageSource,
    indices: Sequence[int],
    *,
    image_size: tuple[int, int],
    num_channels: int,
    resample: str = "bicubic",
) -> tuple[npt.NDArray[np.uint8], list[int], dict[int, DataError]]:
    """Decode some rows of a source and keep apart those that cannot be read.

    Returns:
        The pixels of the good rows, uint8 (n, C, H, W); their indices, in the order of `indices`; and by index the
        error of each unreadable row, whose message names the row and its file.
    """
    decoded = decode_images(source.stored(indices), image_size=image_size, num_channels=num_channels, resample=resample)
    broken = {index: result for index, result in zip(indices, decoded, strict=True) if isinstance(result, DataError)}
    good = [result for result in decoded if not isinstance(result, DataError)]
    return stacked(good, num_channels, image_size), [index for index in indices if index not in broken], broken


def decode_images(
    images: Sequence[StoredImage], *, image_size: tuple[int, int], num_channels: int, resample: str = "bicubic"
) -> list[npt.NDArray[np.uint8] | DataError]:
    """Decode images, by threads where they help.

    Returns:
        Of each its pixels, uint8 (C, H, W), or the error that says why it cannot be read.
    """

    def decode(image: StoredImage) -> npt.NDArray[np.uint8]:
        data = image.data()
        return image_array(data, num_channels=num_channels, size=image_size, resample=resample, name=image.name)

    return map_images(decode, images)


def map_images(
    decode: Callable[..., T], images: Sequence[StoredImage], *others: Sequence[object], threads: bool = True
) -> list[T | DataError]:
    """Decode images.

    Args:
        decode: called with an image, and with its entry of each of the `others`.
        threads: whether to use several where they help.

    Returns:
        Of each what `decode` gives, or the error that says why it cannot be read.
    """

    def attempt(image: StoredImage, *more: object) -> T | DataError:
        try:
            return decode(image, *more)
        except DataError as error:
            return error

    if not threads or not _threads_help(images):
        return list(map(attempt, images, *others))
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        return list(pool.map(attempt, images, *others))


def stacked(
    images: Sequence[npt.NDArray[np.uint8]], num_channels: int, image_size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """Images (C, H, W) as one array (n, C, H, W), also where there are none."""
    return np.stack(images) if images else np.empty((0, num_channels, *image_size), dtype=np.uint8)


def _threads_help(images: Sequence[StoredImage]) -> bool:
    if get_worker_info() is not None or DECODING_THREADS == 1 or len(images) < 2:
        return False  # the processes of a DataLoader already share the cores
    if any(image.content is None for image in images):
        return True
    return sum(len(image.content or b"") for image in images) > SMALL_FILE * len(images)


class ImageDataset(Dataset[dict[str, Tensor]]):
    """The images of a source, all brought to one size; a map-style dataset for `torch.utils.data.DataLoader`.

    It gives whole batches, so a DataLoader needs `collate_fn=lambda batch: batch`.

    Images that cannot be read stay in the count, since the order of training is made of all rows: `training_batches`
    puts others in their place and `ordered_batches` leaves them out. Indexing such a row is an error.

    Args:
        source: where the images come from.
        image_size: (H, W).
        num_channels: 1 (grey) or 3 (RGB).
        resample: "bicubic", "bilinear", "lanczos" or "nearest".
        memory_limit: bytes of decoded pixels up to which everything is decoded now, once, into one tensor; above it
            each batch is decoded when it is asked for.

    Attributes:
        unreadable: by row the images that cannot be read, as far as they are known in this process: all of them where
            everything is decoded now, else those that were among the batches so far.

    Raises:
        DataError: everything is decoded now, and none of the images can be read.
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
        self.unreadable: dict[int, UnreadableImage] = {}
        labels = source.labels()
        self.labels = None if labels is None else torch.from_numpy(labels)  # int64 (N,)
        fits = len(source) * num_channels * height * width <= memory_limit
        self.pixels = self._decode_all() if fits else None  # uint8 (N, C, H, W), zeros where unreadable

    @property
    def in_memory(self) -> bool:
        """Whether the pixels of every image are already decoded."""
        return self.pixels is not None

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One image: pixels uint8 (C, H, W) and, where there are labels, its label as an int64 scalar."""
        batch = self.__getitems__([index])
        return {"pixels": batch["pixels"][0]} | ({"labels": batch["labels"][0]} if "labels" in batch else {})

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Several images.

        Raises:
            DataError: one of them cannot be read.
        """
        pixels, _, broken = self.read(indices)
        for image in broken.values():
            raise DataError(image.reason)
        return self.batch(indices, pixels)

    def read(self, indices: Sequence[int]) -> tuple[Tensor, list[int], dict[int, UnreadableImage]]:
        """Pixels uint8 (n, C, H, W) of those that can be read, their rows in the order asked for, and the others."""
        if self.pixels is None:
            return self._decode(indices)
        good = [index for index in indices if index not in self.unreadable]
        broken = {index: self.unreadable[index] for index in indices if index in self.unreadable}
        return self.pixels.index_select(0, torch.as_tensor(good, dtype=torch.int64)), good, broken

    def batch(self, indices: Sequence[int], pixels: Tensor, skipped: Iterable[UnreadableImage] = ()) -> Batch:
        """Put the pixels of some rows together with what else is known of them."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        batch: Batch = {"pixels": pixels, "index": index, "skipped": list(skipped)}
        if self.labels is not None:
            batch["labels"] = self.labels.index_select(0, index)
        return batch

    def check_unreadable(self, max_share: float = 0.01) -> None:
        """Refuse to go on with too many images that cannot be read, of those known so far.

        Args:
            max_share: of all images of the source, the setting `max_unreadable`. Above 0 it always allows one image.

        Raises:
            DataError: there are more; the message names the first three.
        """
        if len(self.unreadable) > (max(1, max_share * len(self)) if max_share else 0):
            reasons = [self.unreadable[index].reason for index in sorted(self.unreadable)[:3]]
            raise DataError(
                f"{len(self.unreadable):,} of the {counted(len(self), 'image')} of {self.source.name} cannot be read, "
                f"more than the {100 * max_share:g}% that may be skipped; mend or remove them, or raise "
                f"max_unreadable, which is {max_share:g}: {'; '.join(reasons)}"
            )

    def none_readable(self, example: UnreadableImage) -> DataError:
        """The error for a source without a single image that can be read."""
        return DataError(
            f"none of the {counted(len(self), 'image')} of {self.source.name} can be read, such as: {example.reason}"
        )

    def _decode(self, indices: Sequence[int]) -> tuple[Tensor, list[int], dict[int, UnreadableImage]]:
        pixels, good, errors = read_images(
            self.source,
            indices,
            image_size=self.image_size,
            num_channels=self.num_channels,
            resample=self.resample,
        )
        broken = {index: UnreadableImage(index=index, reason=str(error)) for index, error in errors.items()}
        return torch.from_numpy(pixels), good, broken

    def _decode_all(self) -> Tensor:
        total = len(self.source)
        pixels = torch.zeros((total, self.num_channels, *self.image_size), dtype=torch.uint8)
        starts = tqdm(  # silent where it is quick, and where nobody watches
            range(0, total, CHUNK),
            desc=f"decoding {self.source.name}",
            unit_scale=CHUNK,
            delay=2.0,
            disable=None,
            leave=False,
        )
        for start in starts:
            decoded, good, broken = self._decode(range(start, min(start + CHUNK, total)))
            pixels[torch.as_tensor(good, dtype=torch.int64)] = decoded
            self.unreadable |= broken
        if len(self.unreadable) == total:
            raise self.none_readable(self.unreadable[0])
        return pixels
