"""Batches: the right pixels, in an order that is a pure function of (seed, step), drawn from no global generator."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.images import images_of
from vqtok.data import ImageDataset, ImageSource, open_all, ordered_batches, to_pixels, training_batches
from vqtok.data.loading import Batch, sampled_rows, training_order
from vqtok.errors import ConfigurationError, DataError


def test_to_pixels_maps_0_to_255_onto_minus_1_to_1() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    pixels = to_pixels(levels)
    assert pixels.dtype == torch.float32 and pixels[0] == -1 and pixels[255] == 1
    assert torch.equal(pixels, torch.arange(256) / 127.5 - 1)
    assert torch.equal(((pixels + 1) * 127.5).round().to(torch.uint8), levels)


def test_an_epoch_is_a_permutation_and_epochs_and_seeds_differ() -> None:
    def epochs(seed: int) -> list[list[int]]:
        steps = list(islice(training_order(13, batch_size=4, seed=seed), 6))
        assert all(len(step) == 4 for step in steps)
        return [sum(steps[:3], []), sum(steps[3:], [])]

    first, second = epochs(seed=0)
    for epoch in (first, second):
        assert len(set(epoch)) == 12 and set(epoch) < set(range(13))  # 13 images, three whole steps of 4
    assert first != second and epochs(seed=0) == [first, second] and epochs(seed=1)[0] not in (first, second)


@pytest.mark.parametrize("start", [0, 1, 2, 3, 7, 100])
def test_a_later_start_goes_on_where_the_whole_sequence_would_be(start: int) -> None:
    whole = list(islice(training_order(13, batch_size=4, seed=5), start + 5))
    assert list(islice(training_order(13, batch_size=4, seed=5, start_step=start), 5)) == whole[start:]


def test_ranks_share_out_the_batches_of_one_process() -> None:
    one = islice(training_order(50, batch_size=8, seed=3), 15)
    ranks = [training_order(50, batch_size=2, seed=3, rank=rank, world_size=4) for rank in range(4)]
    for step, parts in zip(one, zip(*ranks, strict=False), strict=False):
        assert step == sum(parts, [])


def test_skipping_decodes_nothing(source: ImageSource, monkeypatch: pytest.MonkeyPatch) -> None:
    images = images_of(source, memory_limit=0)
    asked: list[int] = []
    read = ImageSource.stored
    monkeypatch.setattr(ImageSource, "stored", lambda self, indices: (asked.extend(indices), read(self, indices))[1])
    next(training_batches(images, batch_size=3, seed=0, start_step=1001))
    assert asked == next(training_order(12, batch_size=3, seed=0, start_step=1001))


@pytest.mark.parametrize(("memory_limit", "num_workers"), [(1 << 20, 0), (0, 0), (0, 2)])
def test_batches_do_not_depend_on_where_they_are_decoded_nor_draw_random_numbers(
    source: ImageSource, memory_limit: int, num_workers: int
) -> None:
    reference = images_of(source)
    images = images_of(source, memory_limit)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    batches = training_batches(images, batch_size=5, seed=1, start_step=1, num_workers=num_workers)
    for batch, indices in zip(islice(batches, 4), training_order(12, batch_size=5, seed=1, start_step=1), strict=False):
        assert torch.equal(batch["pixels"], reference.pixels[indices])  # type: ignore[index]
        assert torch.equal(batch["labels"], reference.labels[indices])  # type: ignore[index]
    batches.close()  # type: ignore[attr-defined]
    ordered = list(ordered_batches(images, 5, num_workers=num_workers))
    assert [len(batch["pixels"]) for batch in ordered] == [5, 5, 2]
    assert torch.equal(torch.cat([batch["pixels"] for batch in ordered]), reference.pixels)  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), before)


def test_too_few_images_and_senseless_sizes_are_refused(source: ImageSource) -> None:
    images = images_of(source)
    with pytest.raises(DataError, match="has 12 images for training, fewer than one batch of 13; give more"):
        training_batches(images, batch_size=13, seed=0)
    with pytest.raises(DataError, match="one batch of 7 on each of 2 processes"):
        training_batches(images, batch_size=7, seed=0, world_size=2)
    with pytest.raises(ConfigurationError, match="at least 1, got 0"):
        training_batches(images, batch_size=0, seed=0)
    with pytest.raises(ConfigurationError, match="at least 1, got -1"):
        next(ordered_batches(images, -1))


def break_images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text("no image at all")


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Forty grey images, each of its own level: 00.png is 0, 01.png is 1, ..."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(40):
        Image.new("L", (4, 4), number).save(folder / f"{number:02d}.png")
    return folder


def levels_of(batch: Batch) -> list[int]:
    return batch["pixels"][:, 0, 0, 0].tolist()


def small(folder: Path, memory_limit: int = 0) -> ImageDataset:
    source = open_all(str(folder))["train"]
    return ImageDataset(source, image_size=(4, 4), num_channels=1, memory_limit=memory_limit)


WAYS = [(1 << 20, 0), (0, 0), (0, 2)]  # memory limit and worker processes: in memory, on demand, by workers


@pytest.mark.parametrize(("memory_limit", "num_workers"), WAYS)
def test_training_goes_on_past_images_that_cannot_be_read_and_names_them(
    many: Path, memory_limit: int, num_workers: int
) -> None:
    break_images(many, "07.png", "23.png")
    images = small(many, memory_limit)
    batches = training_batches(images, batch_size=8, seed=0, num_workers=num_workers)
    epoch = list(islice(batches, 5))
    batches.close()  # type: ignore[attr-defined]
    wanted = [level for step in islice(training_order(40, batch_size=8, seed=0), 5) for level in step]
    seen = [level for batch in epoch for level in levels_of(batch)]
    assert sum(a != b for a, b in zip(wanted, seen, strict=True)) == 2  # all others are where they would be
    assert 7 not in seen and 23 not in seen and set(seen) == set(range(40)) - {7, 23}
    skipped = [image.index for batch in epoch for image in batch["skipped"]]
    assert skipped == [level for level in wanted if level in (7, 23)]
    assert sorted(images.unreadable) == [7, 23]
    assert f"{many / '07.png'} is not an image" in images.unreadable[7].reason


@pytest.mark.parametrize(("memory_limit", "num_workers"), WAYS)
@pytest.mark.parametrize("start", [1, 4, 5, 13])
def test_exact_resume_holds_with_broken_images_among_the_data(
    many: Path, memory_limit: int, num_workers: int, start: int
) -> None:
    break_images(many, *(f"{number:02d}.png" for number in range(0, 40, 7)))
    whole = list(islice(training_batches(small(many), batch_size=8, seed=3), start + 6))
    resumed = training_batches(
        small(many, memory_limit), batch_size=8, seed=3, start_step=start, num_workers=num_workers
    )
    for expected, batch in zip(whole[start:], resumed, strict=False):
        assert torch.equal(batch["pixels"], expected["pixels"]) and torch.equal(batch["index"], expected["index"])
        assert [image.index for image in batch["skipped"]] == [image.index for image in expected["skipped"]]
    resumed.close()  # type: ignore[attr-defined]


def test_ranks_never_share_an_image_of_a_step_though_some_are_replaced(many: Path) -> None:
    break_images(many, *(f"{number:02d}.png" for number in range(0, 40, 4)))  # a quarter of them
    images = small(many)
    one = training_batches(images, batch_size=8, seed=1)
    ranks = [training_batches(images, batch_size=2, seed=1, rank=rank, world_size=4) for rank in range(4)]
    for whole, *parts in islice(zip(one, *ranks, strict=False), 12):
        assert torch.equal(torch.cat([part["index"] for part in parts]), whole["index"])
        assert len(set(whole["index"].tolist())) == 8 and not any(index % 4 == 0 for index in whole["index"].tolist())


def test_one_step_an_epoch_takes_the_images_left_over_as_replacements(many: Path) -> None:
    break_images(many, "01.png", "02.png", "03.png")
    batches = training_batches(small(many), batch_size=30, seed=0)
    for batch in islice(batches, 6):
        assert len(set(batch["index"].tolist())) == 30
    full = training_batches(small(many), batch_size=40, seed=0)  # nothing is left over: some come twice
    assert len(set(next(full)["index"].tolist())) == 37


def test_labels_are_those_of_the_replacements(source: ImageSource, images_folder: Path) -> None:
    break_images(images_folder, "cat/00.png", "dog/01.png")
    images = images_of(source, memory_limit=0)
    expected = np.asarray(source.labels())
    for batch in islice(training_batches(images, batch_size=5, seed=0), 8):
        assert batch["labels"].tolist() == expected[batch["index"]].tolist()


@pytest.mark.parametrize("memory_limit", [0, 1 << 20])
def test_images_none_of_which_can_be_read_are_an_error_at_once(many: Path, memory_limit: int) -> None:
    break_images(many, *(f"{number:02d}.png" for number in range(40)))
    with pytest.raises(DataError, match=r"^none of the 40 images of .*many can be read, such as: .*png is not an"):
        next(training_batches(small(many, memory_limit), batch_size=8, seed=0))
    with pytest.raises(DataError, match=r"^none of the 40 images of .*many can be read"):
        list(ordered_batches(small(many, memory_limit), 8))


def test_a_slot_gives_up_after_a_hundred_images_in_a_row(tmp_path: Path) -> None:
    for number in range(120):
        (tmp_path / f"{number:03d}.png").touch()
    Image.new("L", (4, 4)).save(tmp_path / "one.png")
    with pytest.raises(DataError, match=r"^100 images of .* in a row cannot be read, such as: "):
        for batch in training_batches(small(tmp_path), batch_size=8, seed=0):
            del batch


def test_more_unreadable_images_than_allowed_are_an_error_that_names_some(many: Path) -> None:
    images = small(many, 1 << 20)
    images.check_unreadable(0.0)
    break_images(many, "07.png", "23.png")
    images = small(many, 1 << 20)
    images.check_unreadable(0.05)
    with pytest.raises(
        DataError,
        match=r"2 of the 40 images of .*many cannot be read, more than the 1% that may be skipped; .*: .*07.png is not",
    ):
        images.check_unreadable(0.01)
    images.unreadable.popitem()
    images.check_unreadable(0.01)  # one is always allowed


@pytest.mark.parametrize(("memory_limit", "num_workers"), WAYS)
def test_evaluation_leaves_unreadable_images_out_and_says_which(
    many: Path, memory_limit: int, num_workers: int
) -> None:
    break_images(many, "00.png", "01.png", "02.png", "03.png", "17.png")
    images = small(many, memory_limit)
    batches = list(ordered_batches(images, 4, num_workers=num_workers))
    assert [level for batch in batches for level in levels_of(batch)] == [*range(4, 17), *range(18, 40)]
    assert [index for batch in batches for index in batch["index"].tolist()] == [*range(4, 17), *range(18, 40)]
    assert sorted(images.unreadable) == [0, 1, 2, 3, 17]
    assert [len(batch["pixels"]) for batch in batches] == [4, 4, 4, 3, 4, 4, 4, 4, 4]  # the first one is left out


def test_some_images_are_of_the_whole_split_and_always_the_same(many: Path) -> None:
    """The first images of a split in the order of its classes would be of some classes only."""
    images = small(many)
    batches = list(ordered_batches(images, 4, num_images=10))
    seen = [index for batch in batches for index in batch["index"].tolist()]
    assert seen == sorted(set(seen)) == sampled_rows(40, 10) and len(seen) == 10
    assert min(seen) < 10 and max(seen) >= 30
    assert sampled_rows(40, None) == sampled_rows(40, 40) == sampled_rows(40, 99) == list(range(40))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_process_decodes_only_its_share_of_the_evaluation_images(
    many: Path, num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = small(many)
    decoded: list[int] = []
    read = ImageSource.stored
    monkeypatch.setattr(ImageSource, "stored", lambda self, indices: (decoded.extend(indices), read(self, indices))[1])
    shares = [
        list(ordered_batches(images, 4, num_workers=num_workers, num_images=30, rank=rank, world_size=3))
        for rank in range(3)
    ]
    rows = sampled_rows(40, 30)
    starts = [[rows[start] for start in range(4 * rank, 30, 12)] for rank in range(3)]
    assert [[batch["index"][0].item() for batch in share] for share in shares] == starts
    assert [len(share[-1]["index"]) for share in shares] == [4, 2, 4]
    if num_workers == 0:
        assert sorted(decoded) == rows
