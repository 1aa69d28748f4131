"""Checkpoint files of every format give the tensors that torch wrote, and hostile ones a line and nothing else."""

from __future__ import annotations

import argparse
import collections
import io
import os
import pickle
import resource
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vqtok.convert import Opaque, read_checkpoint, tensors_of
from vqtok.errors import CheckpointError

FORMATS = {"zip": True, "legacy": False}
DTYPES = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)


def save(value: Any, file: Path, format: str = "zip", protocol: int = 2) -> Path:
    torch.save(value, file, _use_new_zipfile_serialization=FORMATS[format], pickle_protocol=protocol)
    return file


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4)))


def equal(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(theirs, dict):
        return list(ours) == list(theirs) and all(equal(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, list | tuple):
        return type(ours) is (list if isinstance(theirs, list) else tuple) and all(map(equal, ours, theirs))
    return bool(ours == theirs)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("format", FORMATS)
def test_what_torch_wrote(tmp_path: Path, format: str, protocol: int) -> None:
    large, weights = torch.randn(6, 5), module()
    optimizer = torch.optim.AdamW(weights.parameters())
    weights(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    written = {
        "state_dict": weights.state_dict(),
        "optimizer": optimizer.state_dict(),
        "all types": [large.to(dtype) for dtype in DTYPES],
        "a part": large[1:4, ::2],
        "transposed": large.t(),
        "parameter": nn.Parameter(large),
        "of no numbers": torch.empty(0, 3),
        "of one number": torch.tensor(2.5),
        "plain": (1, -(2**70), 0.5, "text", b"bytes", None, True, [(), {}], torch.Size([1, 2])),
        "ordered": collections.OrderedDict(b=1, a=2),
    }
    found = read_checkpoint(save(written, tmp_path / "a.pt", format, protocol))
    assert equal(found, written)
    assert found["a part"].untyped_storage().data_ptr() == found["transposed"].untyped_storage().data_ptr()


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_not_known_is_neither_imported_nor_called(tmp_path: Path, format: str) -> None:
    written = {"args": argparse.Namespace(lr=0.1), "set": {1}, "dtype": torch.float16, "kind": collections.Counter}
    found = read_checkpoint(save(written, tmp_path / "a.pt", format, 4))
    assert all(isinstance(value, Opaque) for value in found.values())
    assert (found["args"].name, found["args"].state) == ("argparse.Namespace", {"lr": 0.1})
    assert (found["kind"].name, found["kind"].args) == ("collections.Counter", None)


@pytest.mark.parametrize("format", FORMATS)
def test_a_pickled_module_gives_its_tensors(tmp_path: Path, format: str) -> None:
    found = tensors_of(read_checkpoint(save(module(), tmp_path / "a.pt", format)))
    assert equal(found, dict(module().state_dict()))


def test_torchscript_gives_its_tensors_without_its_code(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module().eval()).save(tmp_path / "a.jit")
    found = tensors_of(read_checkpoint(tmp_path / "a.jit"))
    assert equal(dict(sorted(found.items())), dict(sorted(module().state_dict().items())))


def test_safetensors(tmp_path: Path) -> None:
    save_file({"a.b": torch.arange(3)}, tmp_path / "a.safetensors")
    assert equal(tensors_of(read_checkpoint(tmp_path / "a.safetensors")), {"a.b": torch.arange(3)})
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 100)
    assert "is damaged, or no safetensors file" in refusal(tmp_path / "bad.safetensors")


def test_tensors_may_be_written_to_and_the_file_stays(tmp_path: Path) -> None:
    file = save({"a": torch.zeros(3)}, tmp_path / "a.pt")
    before = file.read_bytes()
    read_checkpoint(file)["a"].add_(1)
    assert file.read_bytes() == before


def refusal(file: Path) -> str:
    """The one line that a file is refused with."""
    with pytest.raises(CheckpointError) as refused:
        read_checkpoint(file)
    assert "\n" not in str(refused.value) and str(file) in str(refused.value)
    return str(refused.value)


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


DEEP = "it nests containers more than 100 deep"
BOMBS = {
    "nested lists": (b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b".", DEEP),
    "pairs of pairs": (b"\x80\x02]" + b"2\x86" * 300 + b".", DEEP),
    "many lists": (b"\x80\x02(" + b"]" * 3_000_000 + b"l.", "its pickle has more than 2,000,000 steps"),
    "a far place in memory": (b"\x80\x02]r\xff\xff\xff\xff.", None),
    "a long text": (
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 30) + b"x" * (100 << 20) + b".",
        "its pickle has more than 64 MiB",
    ),
}
LIMITED = """
import resource, sys
from vqtok.convert import read_checkpoint
from vqtok.errors import CheckpointError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for file in sys.argv[1:]:
    try:
        read_checkpoint(file)
    except CheckpointError as error:
        print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_bombs_are_one_line_and_take_little_memory(tmp_path: Path) -> None:
    files = {name: with_pickle(tmp_path / f"{name}.pt", content) for name, (content, _) in BOMBS.items()}
    done = subprocess.run([sys.executable, "-c", LIMITED, *files.values()], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    *said, kilobytes = done.stdout.splitlines()
    assert int(kilobytes) < 600_000
    assert said == [
        f"{files[name]} is no checkpoint: {complaint}" for name, (_, complaint) in BOMBS.items() if complaint
    ]


def test_files_of_other_kinds_are_one_line(tmp_path: Path) -> None:
    whole = save({"a": torch.randn(100)}, tmp_path / "a.pt").read_bytes()
    legacy = save({"a": torch.randn(100)}, tmp_path / "b.pt", "legacy").read_bytes()
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("readme.txt", "text")
    with zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (1 << 20))
    for name, content, complaint in (
        ("cut.pt", whole[:-100], "is damaged or was cut short"),
        ("cut2.pt", whole[:200], "is damaged or was cut short"),
        ("legacy.pt", legacy[:-100], "is damaged or was cut short"),
        ("legacy2.pt", legacy[:60], "cannot be read"),
        ("text.pt", b"just text\n", "is damaged, or no checkpoint"),
        ("number.pt", pickle.dumps(5), "is no checkpoint of torch"),
        ("empty.pt", b"", "is empty"),
        ("other.pt", None, "it has no data.pkl"),
        ("packed.pt", None, "is compressed"),
        ("none.pt", None, "there is no file"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        assert complaint in refusal(tmp_path / name), name


def test_entries_that_lie_about_their_place_are_refused(tmp_path: Path) -> None:
    file = with_pickle(tmp_path / "a.pt", tensor_pickle((4,), (1,)))
    data = bytearray(file.read_bytes())
    at = data.rfind(b"PK\x01\x02")  # of the last entry in the directory, whose size is made larger
    data[at + 20 : at + 28] = struct.pack("<II", 1 << 20, 1 << 20)
    file.write_bytes(data)
    assert "ends past the file" in refusal(file)


def test_a_large_file_is_mapped_rather_than_read(tmp_path: Path) -> None:
    file = save({"large": torch.zeros(100 << 20, dtype=torch.uint8), "small": torch.ones(3)}, tmp_path / "a.pt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = read_checkpoint(file)
    assert equal(found["small"], torch.ones(3)) and found["large"].shape == (100 << 20,)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
