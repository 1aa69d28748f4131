"""Checkpoint files that are made to run code, to crash, to hang or to fill the memory are one line and nothing else."""

from __future__ import annotations

import collections
import contextlib
import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.convert.test_checkpoint import FORMATS, equal, refusal, save
from vqtok.convert import Opaque, read_checkpoint, tensors_of
from vqtok.errors import CheckpointError


class Runs:
    """Makes a file when a pickle of it is read the usual way."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("format", FORMATS)
def test_code_is_not_run(tmp_path: Path, format: str) -> None:
    file = save({"a": Runs(tmp_path / "trace"), "b": torch.ones(2)}, tmp_path / "a.pt", format)
    found = read_checkpoint(file)
    assert not (tmp_path / "trace").exists() and equal(found["b"], torch.ones(2))
    assert found["a"].name.endswith("system") and found["a"].args == (f"touch {tmp_path / 'trace'}",)
    torch.load(file, weights_only=False)
    assert (tmp_path / "trace").exists(), "the file would not have run anything"


def with_pickle(file: Path, data: bytes) -> Path:
    """A zip file of torch with this pickle."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", b"\0" * 16)
    return file


def tensor_pickle(size: tuple[int, ...], stride: tuple[int, ...], *, elements: int = 4, offset: int = 0) -> bytes:
    """The pickle of a tensor over four numbers that claims whatever is asked."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, each: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", elements) if isinstance(each, Storage) else None

    class Claims:
        def __reduce__(self) -> Any:
            arguments = (Storage(), offset, size, stride, False, collections.OrderedDict())
            return torch._utils._rebuild_tensor_v2, arguments

    sink = io.BytesIO()
    Pickler(sink, 2).dump({"a": Claims()})
    return sink.getvalue()


def test_a_made_up_tensor_that_claims_what_it_has_is_read(tmp_path: Path) -> None:
    file = with_pickle(tmp_path / "a.pt", tensor_pickle((2, 2), (2, 1)))
    assert equal(read_checkpoint(file), {"a": torch.zeros(2, 2)})


@pytest.mark.parametrize(
    ("claimed", "complaint"),
    [
        (tensor_pickle((2**20, 2**20), (2**20, 1)), "claims 1,099,511,627,776 numbers, and its data holds 4"),
        (tensor_pickle((2**20, 2**20), (0, 0)), "claims 1,099,511,627,776 numbers, and its data holds 4"),
        (tensor_pickle((2,), (3,), offset=2), "claims 2 numbers, and its data holds 4"),
        (tensor_pickle((4,), (1,), elements=2**40), "a tensor claims 1,099,511,627,776 numbers, and its data holds 4"),
        (tensor_pickle((4,), (1,), elements=-1), "a tensor claims -1 numbers"),
        (tensor_pickle((-1, 4), (1, 1)), "a tensor has no shape"),
        (tensor_pickle((4,), (1,), offset=-1), "a tensor has no shape"),
        (tensor_pickle((0, 1 << 70), (1, 1)), "a tensor has no shape"),
        (tensor_pickle((1,), (1 << 70,)), "a tensor has no shape"),
        (tensor_pickle((4,), (1,), offset=1 << 70), "a tensor has no shape"),
        (tensor_pickle((1,) * 1000, (1,) * 1000), "a tensor has no shape"),
        (tensor_pickle((4,), (1,), elements=1 << 1000), "a tensor claims too many numbers"),
        (tensor_pickle((4,), ("x",)), "a tensor has no shape"),  # type: ignore[arg-type]
        (b"\x80\x02]q\x00h\x00a.", "a container in it holds itself"),
        (b"\x80\x02" + b"(" * 10, "its pickle cannot be read"),
        (b"\x80\x02h\x05.", "its pickle cannot be read"),
        (b"\x80\x02\x82\x01.", "its pickle has the operation EXT1"),
        (b"\x80\x04\x96" + struct.pack("<Q", 2**40) + b"x.", "its pickle cannot be read"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.", "its pickle cannot be read"),
        (b"", "its pickle cannot be read"),
        (pickle.dumps(5)[:-1], "its pickle cannot be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_made_up_pickles_are_one_line(tmp_path: Path, claimed: bytes, complaint: str) -> None:
    assert complaint in refusal(with_pickle(tmp_path / "a.pt", claimed))


SYSTEM = b"cposix\nsystem\n"
TOUCH = b"X\x0b\x00\x00\x00touch trace"
OPERATIONS = {
    "REDUCE": b"\x80\x02" + SYSTEM + TOUCH + b"\x85R.",
    "OBJ": b"\x80\x02(" + SYSTEM + TOUCH + b"o.",
    "INST": b"(" + TOUCH + b"iposix\nsystem\n.",
    "NEWOBJ": b"\x80\x02" + SYSTEM + TOUCH + b"\x85\x81.",
    "NEWOBJ_EX": b"\x80\x04" + SYSTEM + TOUCH + b"\x85}\x92.",
    "STACK_GLOBAL": b"\x80\x04X\x05\x00\x00\x00posixX\x06\x00\x00\x00system\x93" + TOUCH + b"\x85R.",
    "BUILD": b"\x80\x02" + SYSTEM + TOUCH + b"\x85R}X\x0c\x00\x00\x00__setstate__" + SYSTEM + b"sb.",
    "eval": b"\x80\x02cbuiltins\neval\nX\x19\x00\x00\x00open('trace','w').close()\x85R.",
    "a hook of torch": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n("
    + SYSTEM
    + TOUCH
    + b"\x85RK\x00K\x01\x85K\x01\x85tR.",
    "copyreg": b"\x80\x02ccopyreg\n_reconstructor\n(" + SYSTEM + b"cbuiltins\nobject\nNtR.",
    "what was rebuilt": b"\x80\x02ctorch._utils\n_rebuild_parameter\n(" + SYSTEM + b"\x89NtR" + TOUCH + b"\x85R.",
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_operation_calls_or_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    found = read_checkpoint(with_pickle(Path("a.pt"), OPERATIONS[name]))
    assert isinstance(found, Opaque) and not Path("trace").exists()
    assert {each for each in set(sys.modules) - before if not each.startswith("encodings.")} == set()
    if name not in ("NEWOBJ", "NEWOBJ_EX", "copyreg", "what was rebuilt"):  # which Python refuses to do for a function
        with contextlib.suppress(Exception):
            pickle.loads(OPERATIONS[name])
        assert Path("trace").exists(), "the pickle would not have run anything"


def typed(name: str) -> bytes:
    """A tensor of bytes that are said to be of this type of torch."""
    storage = b"(X\x07\0\0\0storagectorch\nUntypedStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x10tQ"
    rest = b"K\0K\x02\x85K\x01\x85\x89Nctorch\n" + name.encode() + b"\nNtR."
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n(" + storage + rest


def test_types_of_torch_are_not_looked_up_there(tmp_path: Path) -> None:
    assert equal(read_checkpoint(with_pickle(tmp_path / "a.pt", typed("int64"))), torch.zeros(2, dtype=torch.int64))
    for name in ("quint8", "bits8", "float4_e2m1fn_x2", "_inductor", "onnx", "__version__"):
        assert isinstance(read_checkpoint(with_pickle(tmp_path / "a.pt", typed(name))), Opaque)


ONE_HASH = [each * ((1 << 61) - 1) for each in range(1, 60_000)]
LARGE = pickle.dumps(1 << 80_000, 2)[2:-1]
DEEP, STEPS = "it nests containers more than 100 deep", "its pickle has more than 500,000 steps"
CALLS = "the calls of its pickle are given too much"


def place(number: int) -> bytes:
    return struct.pack("<I", number)


def chain(length: int) -> Iterator[bytes]:
    """A list of lists, each of which holds the next as well."""
    yield b"\x80\x02"
    for number in range(length):
        yield b"]r" + place(number) + b"0"
    for number in range(length - 1):
        yield b"j" + place(number) + b"j" + place(number + 1) + b"a0"
    yield b"(" + b"".join(b"j" + place(number) for number in range(length)) + b"l."


def dicts_of_dicts(tensor: bytes) -> bytes:
    """Sixty dicts, each of which holds the one before twice; a tensor in the first has 2^60 names."""
    parts = [tensor[:-1], b"q\x00"]
    for number in range(60):
        again = b"h" + bytes([number])
        parts += [b"0}K\x01", again, b"sK\x02", again, b"sq", bytes([number + 1])]
    return b"".join(parts) + b"."


def one_dict_at_many_names() -> bytes:
    """A dict of 150,000 numbers that stands at 60,000 places."""
    inner = b"".join(b"J" + place(number) + b"N" for number in range(150_000))
    outer = b"".join(b"J" + place(number) + b"h\x00" for number in range(60_000))
    return b"\x80\x02}(" + inner + b"uq\x000}(" + outer + b"u."


TEXT = b"X" + place(30_000_000) + b"x" * 30_000_000
PAIRS = b"".join(b"J" + struct.pack("<i", number) + b"K\x02\x86" for number in range(100_000))
BOMBS = {
    "nested lists": (b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".", DEEP),
    "a chain beside a list": (b"".join(chain(3000)), DEEP),
    "pairs of pairs": (b"\x80\x02]" + b"2\x86" * 300 + b".", DEEP),
    "dicts of dicts": (dicts_of_dicts(b"\x80\x02}K\x01K\x01s."), "there are more than 100,000 names in it"),
    "one dict at many names": (one_dict_at_many_names(), "there are more than 100,000 names in it"),
    "many lists": (b"\x80\x02(" + b"]" * 3_000_000 + b"l.", STEPS),
    "many names": (b"\x80\x02(" + b"cx\ny\n" * 200_000 + b"l.", None),
    "many short lines": (b"\x80\x02(" + b"I1\n" * 499_000 + b"l.", None),
    "a far place in memory": (b"\x80\x02]r\xff\xff\xff\xff.", None),
    "a long text": (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 30) + b"x" * (100 << 20) + b".", "more than 64 MiB"),
    "keys of one hash": (
        b"\x80\x02}(" + b"".join(b"\x8a\x0c" + each.to_bytes(12, "little") + b"N" for each in ONE_HASH) + b"u.",
        None,
    ),
    "places of one hash": (b"\x80\x02]" + b"".join(b"p%d\n" % each for each in ONE_HASH) + b".", "remembers too much"),
    "text of pairs of pairs": (b"\x80\x02c_codecs\nencode\n]" + b"2\x86" * 40 + b"\x85R.", None),
    "name of pairs of pairs": (b"\x80\x04]" + b"2\x86" * 40 + b"K\x01\x93.", "its pickle cannot be read (TypeError)"),
    "a text again and again": (
        b"\x80\x02" + TEXT + b"q\x000(c_codecs\nencode\nq\x010" + b"h\x01h\x00\x85R" * 300 + b"l.",
        CALLS,
    ),
    "a dict again and again": (
        b"\x80\x02ccollections\nOrderedDict\nq\x010]q\x02(" + PAIRS + b"e0(" + b"h\x01h\x02\x85R" * 300 + b"l.",
        CALLS,
    ),
    "arguments again and again": (
        b"\x80\x02ctorch\nSize\nq\x010(" + b"N" * 200_000 + b"tq\x020" + b"h\x01h\x02R0" * 70_000 + b"N.",
        CALLS,
    ),
    "a number of 24,000 digits": (b"\x80\x02}" + LARGE + b"Ns.", "its pickle has the operation LONG4"),
}
LIMITED = """
import resource, sys, time
from vqtok.convert import read_checkpoint, tensors_of
from vqtok.errors import CheckpointError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for file in sys.argv[1:]:
    said, start = "", time.process_time()
    try:
        tensors_of(read_checkpoint(file))
    except CheckpointError as error:
        said = str(error)
    print(f"{time.process_time() - start:.2f} {said}")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_bombs_are_one_line_and_take_little_time_and_memory(tmp_path: Path) -> None:
    files = [with_pickle(tmp_path / f"{name}.pt", content) for name, (content, _) in BOMBS.items()]
    done = subprocess.run([sys.executable, "-c", LIMITED, *files], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    *lines, kilobytes = done.stdout.splitlines()
    assert int(kilobytes) < 600_000
    for (name, (_, complaint)), line in zip(BOMBS.items(), lines, strict=True):
        seconds, _, said = line.partition(" ")
        assert float(seconds) < 20 and (complaint in said if complaint else not said), (name, line)


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2Jb", "k" * 501])
def test_names_are_a_line_of_text(tmp_path: Path, name: str) -> None:
    found = read_checkpoint(save({name: torch.ones(1)}, tmp_path / "a.pt"))
    with pytest.raises(CheckpointError, match="must be a line of at most 500 characters"):
        tensors_of(found)


def test_what_a_message_quotes_stays_on_its_line(tmp_path: Path) -> None:
    kind = b"X\x03\0\0\0a\nbX\x0a\0\0\0Evil\n\x1b[2JX\x93"
    claimed = b"\x80\x04(X\x07\0\0\0storage" + kind + b"X\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ."
    message = refusal(with_pickle(tmp_path / "a.pt", claimed))
    assert message.isprintable() and "holds numbers of the type 'a\\nb.Evil" in message


def test_copies_of_what_is_not_aligned_have_a_bound(tmp_path: Path) -> None:
    """Entries of a zip file that all lie at the same place."""
    file = tmp_path / "a.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", storages(50))
        for number in range(50):
            archive.writestr(f"archive/data/{complex(number)}", b"\0" * (1 << 16 if number == 0 else 1))
    data = bytearray(file.read_bytes())
    at, entries = data.find(b"PK\x01\x02"), []
    while (at := data.find(b"PK\x01\x02", at)) >= 0:
        entries.append(at)
        at += 4
    offset = struct.unpack("<I", where := data[entries[1] + 42 : entries[1] + 46])[0]
    start = offset + 30 + sum(struct.unpack("<HH", data[offset + 26 : offset + 30]))
    assert start % 8, "the data are to be out of line"
    for entry in entries[2:]:
        data[entry + 20 : entry + 28] = struct.pack("<II", 1 << 16, 1 << 16)
        data[entry + 42 : entry + 46] = where
    file.write_bytes(data)
    assert "parts of it are the data of several tensors" in refusal(file)


def test_a_list_of_entries_that_takes_the_memory_is_not_read(tmp_path: Path) -> None:
    """zipfile makes an object of 500 bytes of each entry, which takes 46 in the file."""
    number = 400_000
    entries = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", *(0,) * 18) * number
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, number & 0xFFFF, number & 0xFFFF, len(entries), 4, 0)
    (tmp_path / "a.pt").write_bytes(b"PK\x03\x04" + entries + end)
    assert "its list of entries has more than 16 MiB" in refusal(tmp_path / "a.pt")


def storages(number: int) -> bytes:
    """The pickle of so many storages of their own."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, each: Any) -> Any:
            return ("storage", torch.DoubleStorage, str(each), "cpu", 1) if isinstance(each, complex) else None

    sink = io.BytesIO()
    Pickler(sink, 2).dump([complex(each) for each in range(number)])
    return sink.getvalue()


def test_entries_that_lie_about_their_place_are_refused(tmp_path: Path) -> None:
    file = with_pickle(tmp_path / "a.pt", tensor_pickle((4,), (1,)))
    data = bytearray(file.read_bytes())
    at = data.rfind(b"PK\x01\x02")  # of the last entry in the directory, whose size is made larger
    data[at + 20 : at + 28] = struct.pack("<II", 1 << 20, 1 << 20)
    file.write_bytes(data)
    assert "ends past the file" in refusal(file)
