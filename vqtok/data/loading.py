"""Images in batches: shuffled without end to train on, in order to evaluate on, decoded by worker processes or here.

The batch of a training step is a pure function of (seed, step) and of which images can be read, so that a run that
stops goes on with the very batch that would have come next. Nothing here draws from torch's global random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vqtok.data.dataset import Batch, ImageDataset, UnreadableImage
from vqtok.errors import ConfigurationError, DataError
from vqtok.text import counted

__all__ = ["ordered_batches", "sampled_rows", "to_pixels", "training_batches", "training_order"]

TRIES = 100  # images in a row that may be unreadable before a slot of a batch is given up

Request = TypeVar("Request")


def to_pixels(pixels: Tensor) -> Tensor:
    """uint8 0..255 to float32 in [-1, 1], on the device that the pixels are on."""
    return pixels.to(torch.float32).div_(127.5).sub_(1.0)


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
    step depends on nothing but the arguments and which images can be read: earlier ones are skipped without being
    decoded, and processes do not talk to each other.

    An image that cannot be read is replaced by the one that its slot of the batch has in the next step of the epoch,
    else the step after, and so on round the epoch. The other images stay where they are. Since no two slots of any
    rank have an image in common, no image comes twice in a step. Only where no image of a slot can be read, as in
    epochs of a single step, does it take one of the images left out of the epoch or any other, and then two ranks may
    take the same one. The replaced images are in the batch's `skipped` and in `images.unreadable`; how many are too
    many is for the caller to say, see `ImageDataset.check_unreadable`.

    Args:
        batch_size: images per process.
        num_workers: processes that decode; not used where the images are in memory.

    Raises:
        DataError: fewer images than one step takes, no image that can be read, or a hundred in a row that cannot.
    """
    if batch_size < 1:
        raise ConfigurationError(f"batch_size must be at least 1, got {batch_size}")
    if len(images) < batch_size * world_size:
        processes = f" on each of {world_size} processes" if world_size > 1 else ""
        raise DataError(
            f"{images.source.name} has {counted(len(images), 'image')} for training, fewer than one batch of "
            f"{batch_size}{processes}; give more images or a smaller batch size"
        )
    steps = _steps(len(images), batch_size, start_step, rank, world_size)
    read = partial(_training_batch, images, seed, batch_size * world_size)
    return _batches(images, steps, read, num_workers)


def training_order(
    num_images: int, *, batch_size: int, seed: int, start_step: int = 0, rank: int = 0, world_size: int = 1
) -> Iterator[list[int]]:
    """The indices behind `training_batches`, without end, where every image can be read."""
    for epoch, positions in _steps(num_images, batch_size, start_step, rank, world_size):
        yield _permutation(num_images, seed, epoch)[positions.start : positions.stop].tolist()


def ordered_batches(
    images: ImageDataset,
    batch_size: int,
    num_workers: int = 0,
    *,
    num_images: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """The images once and in order, all or some of them, those that cannot be read left out.

    Batches are cut from all of these, readable or not, and process `rank` of `world_size` gets every `world_size`-th of
    them and decodes no others. A batch may be short, and one of which nothing can be read does not come. A batch's
    `index` says which images it holds; `images.unreadable` names those left out so far.

    Args:
        num_images: only so many, those of `sampled_rows`; None takes all.

    Raises:
        DataError: none of the images can be read. Of several processes none raises for its share: they know together.
    """
    if batch_size < 1:
        raise ConfigurationError(f"batch_size must be at least 1, got {batch_size}")
    rows = sampled_rows(len(images), num_images)
    requests = (
        rows[start : start + batch_size] for start in range(rank * batch_size, len(rows), batch_size * world_size)
    )
    found, example = False, None
    for batch in _batches(images, requests, partial(_ordered_batch, images), num_workers):
        example = batch["skipped"][0] if batch["skipped"] else example
        if len(batch["pixels"]):
            found = True
            yield batch
    if example is not None and not found and world_size == 1:
        raise images.none_readable(example)


def sampled_rows(total: int, wanted: int | None) -> list[int]:
    """Some of `total` rows, ascending and always the same; all where so many are `wanted` or None.

    Datasets are often in the order of their classes, so that the first rows would stand for some classes only.
    """
    if wanted is None or wanted >= total:
        return list(range(total))
    rows: list[int] = np.sort(np.random.default_rng(0).choice(total, wanted, replace=False)).tolist()
    return rows


def _steps(
    num_images: int, batch_size: int, start_step: int, rank: int, world_size: int
) -> Iterator[tuple[int, range]]:
    """The epoch of every step and the positions of its order that a rank takes, without end."""
    per_step = batch_size * world_size
    epoch, step = divmod(start_step, num_images // per_step)
    while True:
        for start in range(step * per_step, num_images - per_step + 1, per_step):
            first = start + rank * batch_size
            yield epoch, range(first, first + batch_size)
        epoch, step = epoch + 1, 0


@lru_cache(maxsize=2)
def _permutation(count: int, seed: int, epoch: int) -> Tensor:
    mixed = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
    return torch.randperm(count, generator=torch.Generator().manual_seed(mixed))


def _training_batch(images: ImageDataset, seed: int, per_step: int, request: tuple[int, range]) -> Batch:
    epoch, positions = request
    order = _permutation(len(images), seed, epoch)
    indices = order[positions.start : positions.stop].tolist()
    pixels, good, broken = images.read(indices)
    if not broken:
        return images.batch(indices, pixels)
    rows = dict(zip(good, pixels, strict=True))
    for slot, position in enumerate(positions):
        if indices[slot] in broken:
            candidates = (int(order[other]) for other in _replacements(position, per_step, len(images)))
            indices[slot] = _replace(images, candidates, rows, broken)
    return images.batch(indices, torch.stack([rows[index] for index in indices]), broken.values())


def _replace(
    images: ImageDataset, candidates: Iterable[int], rows: dict[int, Tensor], broken: dict[int, UnreadableImage]
) -> int:
    """The first candidate that is not in the batch yet and can be read, else one that is; what is read is noted."""
    tries = 0
    again = None
    for index in candidates:
        if index in rows:
            again = index if again is None else again
        elif index not in broken:
            pixels, _, unreadable = images.read([index])
            if not unreadable:
                rows[index] = pixels[0]
                return index
            broken |= unreadable
            tries += 1
            if tries == TRIES:
                reason = unreadable[index].reason
                raise DataError(f"{TRIES} images of {images.source.name} in a row cannot be read, such as: {reason}")
    if again is None:
        raise images.none_readable(next(iter(broken.values())))
    return again


def _replacements(position: int, per_step: int, total: int) -> Iterator[int]:
    """Positions of an epoch's order to take instead of one: its slot in other steps, those left out, then any."""
    column = position % per_step
    left_out = list(range(total - total % per_step, total))
    begin = column % max(1, len(left_out))
    return chain(
        range(position + per_step, total, per_step),
        range(column, position, per_step),
        left_out[begin:],
        left_out[:begin],
        range(position + 1, total),
        range(position),
    )


def _ordered_batch(images: ImageDataset, indices: list[int]) -> Batch:
    pixels, good, broken = images.read(indices)
    return images.batch(good, pixels, broken.values())


def _batches(
    images: ImageDataset, requests: Iterable[Request], read: Callable[[Request], Batch], num_workers: int
) -> Iterator[Batch]:
    """Answer requests in order, in this process or by workers, and note what cannot be read."""
    for answer in _answers(images, requests, read, num_workers):
        if isinstance(answer, DataError):
            raise answer
        images.unreadable |= {image.index: image for image in answer["skipped"]}
        yield answer


def _answers(
    images: ImageDataset, requests: Iterable[Request], read: Callable[[Request], Batch], num_workers: int
) -> Iterable[Batch | DataError]:
    if images.in_memory or num_workers == 0:
        return map(read, requests)
    sampler: Any = requests  # any iterable will do, whatever the annotation of DataLoader says
    loader: DataLoader[Any] = DataLoader(
        _Answers(read),
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=_as_is,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4,
        generator=torch.Generator(),  # otherwise the loader draws a seed from the global one
    )
    return loader


class _Answers(Dataset[Any]):
    """Gives a DataError back instead of raising it: a worker process would wrap its message in a traceback."""

    def __init__(self, read: Callable[[Any], Batch]) -> None:
        self.read = read

    def __getitems__(self, request: Any) -> Batch | DataError:
        try:
            return self.read(request)
        except DataError as error:
            return error


def _as_is(batch: Any) -> Any:
    return batch
