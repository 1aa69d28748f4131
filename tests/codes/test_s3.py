"""Codes on S3, over real HTTP: the same bytes as on a disk, whatever stops the run, and everything that reads them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import s3fs

from tests.cli.conftest import Command, vqtok
from tests.codes.conftest import make_grids, make_spec
from tests.s3_server import S3Server
from tests.written_codes import contents, write_split
from vqtok.codes import CodesDataset, codes_array, load_codes, tokenize_images, verify_codes
from vqtok.errors import DataError, MismatchError
from vqtok.store import Store
from vqtok.tokenizer import VQTokenizer

__all__ = ["vqtok"]

# botocore signs with datetime.utcnow in some versions, and moto's server warns of what flask will change
pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")

OPTIONS: dict[str, Any] = {"batch_size": 2, "shard_rows": 5, "progress": False}
PLACE = "s3://bucket/codes"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[S3Server]:
    with S3Server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", str(tmp_path / "cache" / "downloads"))
        s3fs.S3FileSystem.clear_instance_cache()
        yield server


def files_at(place: str) -> dict[str, bytes]:
    store = Store(place)
    return {name: store.read(name) for name in store.sizes() if not name.startswith("receipts/")}


def test_the_bytes_are_those_of_a_folder_with_one_put_each_and_the_state_last(
    s3: S3Server, tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer
) -> None:
    tokenize_images(images_folder, tiny_tokenizer, tmp_path / "codes", **OPTIONS)
    made = tokenize_images(images_folder, tiny_tokenizer, PLACE, **OPTIONS)
    put = [path.removeprefix("/bucket/codes/") for method, path, _ in s3.requests if method == "PUT"]
    again = tokenize_images(images_folder, tiny_tokenizer, PLACE, **OPTIONS)
    assert (made.made, again.made, again.resumed) == (3, 0, 3)
    assert files_at(PLACE) == contents(tmp_path / "codes")
    whole = {name: 1 + (name == "README.md") for name in Store(PLACE).sizes()}
    assert Counter(put) == whole | {".owner.txt": 1} and ".owner.txt" not in whole
    shards = [name for name in put if name.startswith("train/data-")]
    assert [put[put.index(name) + 1] for name in shards] == [f"receipts/train/0000{number}.json" for number in range(3)]
    assert put[-4:] == ["train/dataset_info.json", "train/state.json", "README.md", "dataset_dict.json"]
    assert verify_codes(PLACE).wrong == ()
    data = Store(PLACE).read(shards[1])
    Store(PLACE).put(shards[1], data[:-9] + bytes(9))
    assert [each.file for each in verify_codes(PLACE).wrong] == [shards[1]]


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_whatever_reads_codes_reads_them_there(
    s3: S3Server, tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer, format: str
) -> None:
    tokenize_images(images_folder, tiny_tokenizer, tmp_path / "codes", format=format, **OPTIONS)
    tokenize_images(images_folder, tiny_tokenizer, PLACE, format=format, **OPTIONS)
    here = load_codes(tmp_path / "codes", tiny_tokenizer)
    there, stream = load_codes(PLACE, tiny_tokenizer), load_codes(PLACE, tiny_tokenizer, streaming=True)
    assert here[:] == there[:] == {column: [row[column] for row in stream] for column in here.column_names}
    assert np.array_equal(codes_array(here), codes_array(there)) and here.features == there.features
    assert len(CodesDataset.from_folder(PLACE)) == 12
    if format == "arrow":
        assert datasets.load_from_disk(PLACE)["train"][:] == here[:]
    pattern = f"{PLACE}/{'train/data-*.arrow' if format == 'arrow' else 'data/train-*.parquet'}"
    rows = datasets.load_dataset(format, data_files=pattern, split="train", streaming=True)
    assert [row["codes"] for row in rows] == here["codes"][:]


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_codes_of_several_tokenizers_are_refused_there(s3: S3Server, tmp_path: Path, format: str) -> None:
    for number, made_by in enumerate("ab"):
        folder = tmp_path / made_by
        spec = make_spec(fingerprint=made_by * 64)
        write_split(folder, make_grids(3, spec), spec)
        (file,) = folder.glob("*.arrow")
        if format == "parquet":
            rows = datasets.Dataset.from_file(str(file))
            rows.to_parquet(file := tmp_path / "a.parquet")
        s3.put(f"mixed/{number}.{format}", file.read_bytes())
    for place in ("s3://bucket/mixed", f"s3://bucket/mixed/*.{format}"):
        for streaming in (False, True):
            with pytest.raises(MismatchError, match="mixes codes of several tokenizers"):
                load_codes(place, streaming=streaming)
    assert len(load_codes(f"s3://bucket/mixed/1.{format}")) == 3


def test_a_place_that_is_not_finished_or_empty_is_one_line(
    s3: S3Server, images_folder: Path, tiny_tokenizer: VQTokenizer
) -> None:
    tokenize_images(images_folder, tiny_tokenizer, PLACE, **OPTIONS)
    (card,) = [name for name in Store(PLACE).sizes() if name == "README.md"]
    Store(PLACE).put(card, Store(PLACE).read(card).replace(b"train/data-*.arrow", b"none-yet/*.arrow"))
    for streaming in (False, True):
        with pytest.raises(DataError, match=f"^the codes in {PLACE} are not finished: run the same [^\n]*$"):
            load_codes(PLACE, streaming=streaming)
    for place in ("s3://bucket/nothing", "s3://nowhere/codes"):
        with pytest.raises(DataError, match=f"^[^\n]*{place}[^\n]*$"):
            load_codes(place)


def test_the_commands_take_an_address(
    s3: S3Server, vqtok: Command, images_folder: Path, tiny_tokenizer: VQTokenizer
) -> None:
    tiny_tokenizer.save_pretrained("tok")
    assert vqtok("tokenize", "images", "--tokenizer", "tok", "--out", PLACE, "--shard-rows", 5)[0] == 0
    status, said, _ = vqtok("inspect", PLACE)
    assert status == 0 and f"{PLACE}: codes\n" in said and "12 images, perplexity" in said
    assert vqtok("inspect", PLACE, "--verify")[:2] == (0, vqtok("inspect", PLACE, "--verify")[1])
    for name, more in (("whole", ()), ("streamed", ("--streaming",))):
        assert vqtok("detokenize", PLACE, "--tokenizer", "tok", "--out", name, *more)[0] == 0
        assert len(list(Path(name).rglob("*.png"))) == 12
    tiny = ("--arch", "pixelcnn", "--set", "arch.hidden_size=8", "--set", "arch.num_layers=1", "--batch-size", 4)
    assert vqtok("train-prior", PLACE, "--out", "run", "--steps", 1, *tiny)[0] == 0
    for command in (("push", PLACE, "org/codes"), ("bind", PLACE, "--tokenizer", "tok")):
        status, _, complained = vqtok(*command)
        assert status == 2 and f"error: {PLACE} is not on this disk: copy" in complained and complained.count("\n") == 1


KILLING = """
import json, os, random, signal, sys, threading, time, traceback
from tqdm import tqdm
from vqtok.codes import tokenize_images
from vqtok.tokenizer import VQTokenizer

tqdm.set_lock(threading.RLock())  # its own is shared by forks, and a child that is killed with it keeps it for ever
images, folder, place, options = sys.argv[1:]
tokenizer = VQTokenizer.from_pretrained(folder)

def start(place):  # nothing runs in this process, whose threads a fork would not have
    child = os.fork()
    if child:
        return child
    try:
        tokenize_images(images, tokenizer, place, **json.loads(options))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

began = time.perf_counter()
assert os.waitpid(start(place + "/alone"), 0)[1] == 0
took, choose = time.perf_counter() - began, random.Random(0)
for _ in range(6):
    child = start(place + "/killed")
    time.sleep(choose.random() * took)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
children = [start(place + "/killed"), start(place + "/both"), start(place + "/both")]
print([os.waitpid(child, 0)[1] for child in children])
"""


def test_killed_and_run_again_and_two_at_once_it_is_the_same_bytes(
    s3: S3Server, tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer
) -> None:
    """There are no locks on S3. Two runs at once put the same bytes under the same names."""
    tiny_tokenizer.save_pretrained(tmp_path / "tok")
    command = [sys.executable, "-c", KILLING, images_folder, tmp_path / "tok", "s3://bucket", json.dumps(OPTIONS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.stdout == "[0, 0, 0]\n", done.stderr
    alone, killed, both = (files_at(f"s3://bucket/{name}") for name in ("alone", "killed", "both"))
    assert len(alone) == 13
    assert without_title(killed) == without_title(both) == without_title(alone)


def without_title(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files, whose card is called after the folder."""
    return {name: data for name, data in files.items() if name != "README.md"}


@pytest.mark.parametrize("status", [503, 500])
def test_an_s3_that_is_busy_is_waited_for(
    s3: S3Server, tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer, status: int
) -> None:
    tokenize_images(images_folder, tiny_tokenizer, tmp_path / "codes", **OPTIONS)
    s3.refuse(2, status, only="PUT.*/(data-00001|receipts/train/00001|state.json)")
    tokenize_images(images_folder, tiny_tokenizer, PLACE, **OPTIONS)
    assert files_at(PLACE) == contents(tmp_path / "codes")
    assert len([each for *_, each in s3.requests if each == status]) == 6, s3.requests


def test_an_s3_that_stays_busy_is_one_line_and_the_next_run_goes_on(
    s3: S3Server,
    vqtok: Command,
    images_folder: Path,
    tiny_tokenizer: VQTokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 2)
    tiny_tokenizer.save_pretrained("tok")
    command = ("tokenize", "images", "--tokenizer", "tok", "--out", PLACE, "--shard-rows", 5, "--quiet")
    s3.refuse(100, only="PUT.*data-00001")
    status, _, complained = vqtok(*command)
    assert status == 2 and complained.splitlines()[-1].startswith(
        f"vqtok: error: cannot write {PLACE}/train/data-00001-of-00003.arrow: "
    )
    assert len([each for *_, each in s3.requests if each == 503]) == 2 * 4, "botocore asks again too"
    s3.refuse(0)
    assert [name for name in Store(PLACE).sizes() if "data-" in name] == ["train/data-00000-of-00003.arrow"]
    assert vqtok(*command)[0] == 0 and verify_codes(PLACE).wrong == ()


@pytest.fixture
def sources(s3: S3Server, images_folder: Path) -> dict[str, str]:
    """Addresses of the same images as tar, parquet and Arrow files."""
    archive, files = io.BytesIO(), sorted(images_folder.rglob("*.png"))
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for file in files:
            tar.add(file, file.name)
    s3.put("tars/train-000.tar", archive.getvalue())
    features = datasets.Features({"image": datasets.Image()})
    rows = [{"bytes": file.read_bytes(), "path": None} for file in files]
    dataset = datasets.Dataset.from_dict({"image": rows}, features=features)
    sink = io.BytesIO()
    dataset.to_parquet(sink)
    s3.put("rows/train-000.parquet", sink.getvalue())
    for file in files:
        s3.put(f"images/{file.name}", file.read_bytes())
    return {
        "tar": "s3://bucket/tars/train-{000..000}.tar",
        "folder": "s3://bucket/tars",
        "parquet": "s3://bucket/rows/*.parquet",
        "web": f"{s3.url}/bucket/rows/train-000.parquet",
    }


@pytest.mark.parametrize("kind", ["tar", "folder", "parquet", "web"])
def test_images_are_read_where_they_are(
    s3: S3Server,
    sources: dict[str, str],
    tmp_path: Path,
    images_folder: Path,
    tiny_tokenizer: VQTokenizer,
    kind: str,
) -> None:
    if kind == "web":  # which moto's S3 gives to nobody without a signature, unless the bucket is public
        s3fs.S3FileSystem().chmod("bucket/rows/train-000.parquet", acl="public-read")
    made = tokenize_images(sources[kind], tiny_tokenizer, tmp_path / "codes", **OPTIONS)
    assert made.images == {"train": 12}
    expected = [tiny_tokenizer.tokenize(file)[0].numpy() for file in sorted(images_folder.rglob("*.png"))]
    assert np.array_equal(codes_array(load_codes(tmp_path / "codes")), expected)


def test_sources_that_cannot_be_read_are_one_line(
    s3: S3Server, sources: dict[str, str], vqtok: Command, tiny_tokenizer: VQTokenizer
) -> None:
    tiny_tokenizer.save_pretrained("tok")
    for source, complaint in (
        ("s3://bucket/images", "holds images in files of their own (00.png, ...), which are read from a disk only"),
        ("s3://bucket/none", "there is no file s3://bucket/none"),
        ("s3://nowhere/none", "s3://nowhere/none cannot be loaded: The specified bucket does not exist"),
        (f"{s3.url}/bucket/", "cannot be listed, as no web server can: name a file"),
        ("gs://bucket/a.tar", "gs://bucket/a.tar needs a package that is not installed: pip install gcsfs"),
    ):
        status, _, complained = vqtok("tokenize", source, "--tokenizer", "tok", "--out", "codes")
        assert status == 2 and complaint in complained and complained.count("\n") == 1
    status, _, complained = vqtok("tokenize", "images", "--tokenizer", "tok", "--out", "gs://bucket/codes")
    assert complained == "vqtok: error: gs://bucket/codes needs a package that is not installed: pip install gcsfs\n"
