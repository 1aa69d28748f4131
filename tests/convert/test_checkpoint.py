"""Checkpoint files of every format give the tensors that torch wrote, and hostile ones a line and nothing else."""

from __future__ import annotations

import argparse
import collections
import pickle
import resource
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


def test_a_large_file_is_mapped_rather_than_read(tmp_path: Path) -> None:
    file = save({"large": torch.zeros(100 << 20, dtype=torch.uint8), "small": torch.ones(3)}, tmp_path / "a.pt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = read_checkpoint(file)
    assert equal(found["small"], torch.ones(3)) and found["large"].shape == (100 << 20,)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
