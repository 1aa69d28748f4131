"""A store is a folder of this machine or an address of fsspec, and codes are the same bytes in both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.written_codes import contents
from vqtok.codes import check_place, planning, tokenize_images
from vqtok.codes.card import CARD
from vqtok.errors import ConfigurationError, DataError
from vqtok.store import Store
from vqtok.tokenizer import VQTokenizer


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """The file system of fsspec that has none beneath it."""
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, memory: fsspec.AbstractFileSystem) -> Store:
    return Store(tmp_path / "a b" if request.param == "disk" else "memory://bucket/a b")


def test_what_is_put_is_read_and_listed_and_removed(store: Store) -> None:
    assert store.sizes() == {} and store.sizes("deep") == {}
    store.put("one", b"1")
    store.put("deep/er/two", b"22")
    store.put("one", b"other")
    assert store.read("one") == b"other"
    assert store.sizes() == {"deep/er/two": 2, "one": 5} and store.sizes("deep") == {"deep/er/two": 2}
    store.remove("one")
    store.remove("one")
    assert list(store.sizes()) == ["deep/er/two"]
    with pytest.raises(FileNotFoundError):
        store.read("one")


def test_the_folder_itself_is_none_of_its_files(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """s3fs lists it where its first file appears between two of its requests."""
    path, size = "/bucket/codes", {"type": "directory", "size": 0}
    monkeypatch.setattr(type(memory), "find", lambda self, place, **options: {path: size, f"{path}/one": {"size": 3}})
    assert Store("memory://bucket/codes").sizes() == {"one": 3}


def test_an_unfinished_file_is_no_content_and_goes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("deep/one", b"1")
    for name in (".vqtok-0123abcd.tmp.arrow", "deep/.vqtok-0123abcd.tmp", ".vqtok-notes"):
        (tmp_path / name).write_bytes(b"x")
    store.remove_unfinished("")
    assert sorted(os.listdir(tmp_path)) == [".vqtok-notes", "deep"] and os.listdir(tmp_path / "deep") == ["one"]


def test_an_address_of_no_known_kind_is_one_line() -> None:
    with pytest.raises(ConfigurationError, match="^nowhere://x cannot be opened: [^\n]*$"):
        Store("nowhere://x")


def test_codes_are_not_written_over_http() -> None:
    with pytest.raises(ConfigurationError, match="^http://host/codes cannot be written: name a folder, or an [^\n]*$"):
        check_place(Store("http://host/codes"))


def test_a_place_that_answers_with_an_error_is_one_line(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("503\nslow down")

    monkeypatch.setattr(type(memory), "pipe_file", refuse)
    with pytest.raises(DataError, match="^cannot write memory://bucket/one: 503 slow down$"):
        Store("memory://bucket").put("one", b"1")


def test_a_bucket_that_is_not_there_is_one_line(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise FileNotFoundError("The specified bucket\ndoes not exist")

    monkeypatch.setattr(type(memory), "pipe_file", refuse)
    with pytest.raises(DataError, match="^cannot write memory://bucket/one: The specified bucket does not exist$"):
        Store("memory://bucket").put("one", b"1")


def test_an_address_with_an_empty_part_is_refused() -> None:
    """s3fs puts files there and then lists none of them: every run would make all shards and finish none."""
    with pytest.raises(ConfigurationError, match=r"^memory://bucket//codes has two slashes in a row in its path"):
        Store("memory://bucket//codes")
    assert Store("memory://bucket/codes//").root == "/bucket/codes"


def test_an_address_that_is_connected_to_at_once_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^zip://codes::.* cannot be opened: .*No such file"):
        Store(f"zip://codes::{tmp_path}/none.zip")


def test_codes_at_an_address_are_those_on_the_disk(
    tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer, memory: fsspec.AbstractFileSystem
) -> None:
    options = {"shard_rows": 5, "batch_size": 2, "progress": False}
    tokenize_images(images_folder, tiny_tokenizer, tmp_path / "codes", **options)
    made, again = (tokenize_images(images_folder, tiny_tokenizer, "memory://bucket/codes", **options) for _ in range(2))
    assert (made.made, made.resumed, again.made, again.resumed) == (3, 0, 0, 3)
    there = {path.split("bucket/codes/")[1]: memory.cat_file(path) for path in memory.find("/bucket/codes")}
    assert {name: data for name, data in there.items() if "receipts" not in name} == contents(tmp_path / "codes")


def test_a_run_that_ended_while_another_was_listing_loses_nothing(
    images_folder: Path,
    tiny_tokenizer: VQTokenizer,
    memory: fsspec.AbstractFileSystem,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There are no locks at an address."""
    options = {"shard_rows": 5, "batch_size": 2, "progress": False}
    listing, times = planning.open_rows, []

    def slow(*arguments: Any, **options_: Any) -> Any:
        times.append(None)
        if len(times) == 1:
            memory.rm("/bucket/codes/.owner.txt")  # else another process does the work, which does not see this memory
            first = tokenize_images(images_folder, tiny_tokenizer, "memory://bucket/codes", **options)
            assert first.made == 3
        return listing(*arguments, **options_)

    monkeypatch.setattr(planning, "open_rows", slow)
    second = tokenize_images(images_folder, tiny_tokenizer, "memory://bucket/codes", **options)
    assert (second.made, second.resumed, len(times)) == (0, 3, 2)


def test_a_run_that_ended_while_another_looked_at_the_place_is_gone_on_with(
    images_folder: Path,
    tiny_tokenizer: VQTokenizer,
    memory: fsspec.AbstractFileSystem,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between its list of names, which had no plan yet, and the card that it then reads."""
    options = {"shard_rows": 5, "batch_size": 2, "progress": False}
    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(planning.Plan, "write", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        tokenize_images(images_folder, tiny_tokenizer, "memory://bucket/codes", **options)
    read, made = Store.read, []

    def slow(store: Store, name: str) -> bytes:
        if name == CARD and not made:
            made.append(None)
            tokenize_images(images_folder, tiny_tokenizer, "memory://bucket/codes", **options)
        return read(store, name)

    monkeypatch.setattr(Store, "read", slow)
    second = tokenize_images(images_folder, tiny_tokenizer, "memory://bucket/codes", **options)
    assert (second.made, second.resumed, len(made)) == (0, 3, 1)


@pytest.mark.parametrize("text", ["{", "[1]", "7", "\xff", "[" * 100_000])
def test_an_object_of_json_is_read_or_one_line_says_what_to_do(store: Store, text: str) -> None:
    assert store.read_object("one.json", advice="write it anew") is None
    store.put("one.json", b'{"a": [1]}')
    assert store.read_object("one.json", advice="write it anew") == {"a": [1]}
    store.put("one.json", text.encode("latin1"))
    with pytest.raises(DataError, match=r"one\.json is damaged \([^\n]+\): write it anew$"):
        store.read_object("one.json", advice="write it anew")
