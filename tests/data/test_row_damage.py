"""Files of rows that were cut short, changed or taken away: what ends in silence elsewhere is one line here."""

from __future__ import annotations

import gzip
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from tests.data.images import png, save, write_tar
from tests.data.rows import opened, row_levels
from tests.data.test_rows import KINDS, arrow, make, tar
from vqtok.data import open_all
from vqtok.data.opening import open_rows
from vqtok.errors import DataError


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


def test_a_tar_cut_between_members_ends_in_silence_elsewhere(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", range(9))
    with tarfile.open(tmp_path / "a.tar") as archive:
        offsets = {info.name: info.offset for info in archive}
    cut(tmp_path / "a.tar", offsets["a/007.png"])
    assert len(open_all(str(tmp_path / "a.tar"))["train"]) == 7
    with pytest.raises(DataError, match="a.tar cannot be read: it was cut short or not finished: after 21,504 bytes"):
        open_rows(str(tmp_path / "a.tar"), folder=tmp_path / "plan")


def test_an_arrow_stream_cut_between_batches_ends_in_silence_elsewhere(tmp_path: Path) -> None:
    arrow(tmp_path / "a.arrow", range(9))
    rows = opened(tmp_path / "a.arrow", tmp_path / "plan").splits["train"]
    with pa.memory_map(str(tmp_path / "a.arrow")) as file, pa.ipc.open_stream(file) as batches:
        batches.read_next_batch()
        end = file.tell()
    cut(tmp_path / "a.arrow", end)
    assert len(open_all(str(tmp_path / "a.arrow"))["train"]) == 3
    with pytest.raises(DataError, match="a.arrow is not what the plan saw: .* bytes with 9 rows then, .* bytes now"):
        row_levels(rows)
    with pytest.raises(DataError, match=f"a.arrow cannot be read: it was cut short or not finished: after {end} bytes"):
        open_rows(str(tmp_path / "a.arrow"), folder=tmp_path / "plan")


@pytest.mark.parametrize("kind", KINDS)
def test_wherever_a_file_is_cut_it_is_refused(tmp_path: Path, kind: str) -> None:
    make(kind, tmp_path / "set", (5,))
    (file,) = (tmp_path / "set").iterdir()
    whole = file.read_bytes()
    ends = len(whole.rstrip(b"\0")) + 512 if kind == "tar" else len(whole)  # the rest of a tar is padding
    sizes = {*range(1, ends, max(1, ends // 60)), ends - 1, ends - 4, ends - 8}
    for size in sorted(sizes):
        file.write_bytes(whole[:size])
        with pytest.raises(DataError, match=file.name):
            open_rows(str(file), folder=tmp_path / "plan")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_changed_since_the_plan_is_named_with_both_sizes(tmp_path: Path, kind: str) -> None:
    rows = opened(make(kind, tmp_path / "set"), tmp_path / "plan").splits["train"]
    file = Path(rows.files[1].path)
    content = file.read_bytes()
    for new in (content[:-1], content + b"\0" * 512, b""):
        file.write_bytes(new)
        assert row_levels(rows, 0, 7) == [*range(7)]  # the files before it are as they were
        with pytest.raises(DataError) as caught:
            row_levels(rows)
        assert str(caught.value) == (
            f"{file} is not what the plan saw: {len(content):,} bytes with 1 row then, {len(new):,} bytes now; "
            "put it back, or plan anew into another folder"
        )
    file.unlink()
    with pytest.raises(DataError, match=r"with 1 row then, no file now; put it back"):
        row_levels(rows)
    file.mkdir()
    with pytest.raises(DataError, match="no regular file"):
        row_levels(rows)


@pytest.mark.parametrize("kind", ["arrow", "tar"])  # the ends of the others say where everything is
def test_other_rows_of_the_same_size_are_refused(tmp_path: Path, kind: str) -> None:
    rows = opened(make(kind, tmp_path / "set", (6,)), tmp_path / "plan").splits["train"]
    (file,) = map(Path, (each.path for each in rows.files))
    size = file.stat().st_size
    file.unlink()
    make(kind, tmp_path / "other", (4,))
    (other,) = (tmp_path / "other").iterdir()
    file.write_bytes(other.read_bytes() + b"\0" * (size - other.stat().st_size))
    with pytest.raises(DataError, match="with 6 rows then, 4 rows now"):
        row_levels(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_of_the_same_size_is_one_line(tmp_path: Path, kind: str) -> None:
    rows = opened(make(kind, tmp_path / "set", (6,)), tmp_path / "plan").splits["train"]
    (file,) = map(Path, (each.path for each in rows.files))
    content = file.read_bytes()
    for place in range(0, len(content), max(1, len(content) // 40)):
        file.write_bytes(content[:place] + b"\xff" * 16 + content[place + 16 :])
        try:
            for batch in rows.read(0, 6, 4):
                assert len(batch) in (4, 2)
        except DataError as error:
            assert "\n" not in str(error) and file.name in str(error)


def test_a_damaged_header_in_a_tar_is_no_end(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {f"{level}.png": png(level) for level in range(6)})
    with tarfile.open(tmp_path / "a.tar") as archive:
        offset = archive.getmembers()[3].offset
    content = bytearray((tmp_path / "a.tar").read_bytes())
    content[offset : offset + 512] = b"x" * 512
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(
        DataError, match=f"a.tar cannot be read: it is damaged: after {offset:,} bytes there is no mark"
    ):
        open_rows(str(tmp_path / "a.tar"), folder=tmp_path / "plan")


@pytest.mark.parametrize("row", [0, 7])  # the first five are looked at for their columns
def test_a_file_of_a_tar_that_is_mostly_not_there_is_refused(tmp_path: Path, row: int) -> None:
    """A few bytes of archive could else ask for all memory."""
    write_tar(tmp_path / "a.tar", {f"{level}.png": png(level) for level in range(9)})
    with tarfile.open(tmp_path / "a.tar") as archive:
        info = archive.getmembers()[row]
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    for place, number in ((386, 0), (398, info.size), (483, 1 << 32)):  # begin and size of a part; size in all
        header[place : place + 12] = b"%011o\0" % number
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content = bytearray((tmp_path / "a.tar").read_bytes())
    content[info.offset : info.offset + 512] = header
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError, match=rf"a.tar cannot be (read|loaded): {row}.png is sparse"):
        open_rows(str(tmp_path / "a.tar"), folder=tmp_path / "plan")


@pytest.mark.parametrize("row", [0, 7])
def test_a_compressed_file_of_a_tar_that_unpacks_to_a_great_many_bytes_is_refused(tmp_path: Path, row: int) -> None:
    members = {f"{level}.png": png(level) for level in range(9)}
    for level in range(9):
        size = 65 << 20 if level == row else 3
        members[f"{level}.txt.gz"] = gzip.compress(bytes(size), compresslevel=1)
    write_tar(tmp_path / "a.tar", dict(sorted(members.items())))
    with pytest.raises(
        DataError, match=rf"a.tar cannot be (read|loaded): {row}.txt.gz unpacks to more than 67,108,864"
    ):
        rows = open_rows(str(tmp_path / "a.tar"), folder=tmp_path / "plan").splits["train"]
        list(rows.read(0, 9, 9, ["txt.gz"]))


def test_an_image_whose_file_changed_since_it_was_listed_is_that_image_alone(tmp_path: Path) -> None:
    for level in range(5):
        save(tmp_path / "set" / f"{level}.png", level)
    (tmp_path / "set" / "gone.png").symlink_to("nothing")
    rows = opened(tmp_path / "set", tmp_path / "plan").splits["train"]
    file = tmp_path / "set" / "3.png"
    was = file.stat().st_size
    file.write_bytes(file.read_bytes() + b"x")
    os.unlink(tmp_path / "set" / "4.png")
    (batch,) = rows.read(0, 6, 6)
    assert row_levels(rows, 0, 3) == [0, 1, 2]
    with pytest.raises(DataError) as caught:
        batch.images[3].data()
    assert str(caught.value) == f"3.png has changed: it had {was} bytes when it was listed, and has {was + 1} now"
    for missing in (batch.images[4], batch.images[5]):
        assert missing.data() == tmp_path / "set" / missing.name  # which decoding says
