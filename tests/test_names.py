"""Names of repositories on the Hub, and paths that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqtok.names import KNOWN, at_revision, findable, hub_name, is_hub_id, meaning


@pytest.mark.parametrize("name", ["org/vq-digits", "some.one/thing-2", "a/b", "_x/y_"])
def test_owner_and_name_are_a_repository(name: str) -> None:
    assert is_hub_id(name)


@pytest.mark.parametrize("name", ["digits", "./digits", "../digits", "~/digits", "/a/b", "a/b/c", "a/", "", "a b/c"])
def test_paths_are_none(name: str) -> None:
    assert not is_hub_id(name)


def test_a_repository_is_no_folder_that_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert hub_name("org/digits") == hub_name("org/digits@") == ("org/digits", None)
    assert hub_name("org/digits@v1") == ("org/digits", "v1")
    assert hub_name("./digits@v1") is None
    Path("org/digits").mkdir(parents=True)
    assert hub_name("org/digits") is None and hub_name("org/digits@v1") == ("org/digits", "v1")


def test_every_short_name_but_that_in_the_package_is_one_of_the_hub() -> None:
    assert [name for name, repository in KNOWN.items() if not is_hub_id(repository)] == ["mnist-mini"]


@pytest.mark.parametrize(
    ("name", "repository", "revision"),
    [
        ("mnist", "ylecun/mnist", None),
        ("ylecun/mnist", "ylecun/mnist", None),
        ("ylecun/mnist@v1", "ylecun/mnist", "v1"),
        ("mnist-mini", "mnist-mini", None),
    ],
)
def test_a_repository_is_the_same_by_its_short_name_and_with_a_revision(
    name: str, repository: str, revision: str | None
) -> None:
    assert meaning(name) == (repository, revision)
    assert findable(name) == name


def test_a_folder_is_the_same_by_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d" / "plain").mkdir(parents=True)
    (tmp_path / "link").symlink_to("d/plain")
    for name in ("d/plain", "./d/plain", "d/plain/", "d/../d/plain", "link", str(tmp_path / "d" / "plain")):
        assert meaning(name) == (str(tmp_path / "d" / "plain"), None)
    assert findable("./d/plain/") == str(tmp_path / "d" / "plain")
    assert findable("link") == str(tmp_path / "link")  # as the user calls it


def test_a_revision_goes_with_the_name_of_a_repository_alone() -> None:
    assert at_revision("mnist", "v1") == "ylecun/mnist@v1"
    assert at_revision("org/name@v0", "v1") == "org/name@v1"
    assert (at_revision("org/name@v0", None), at_revision("mnist-mini", "v1")) == ("org/name@v0", "mnist-mini")
