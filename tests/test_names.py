"""Names of repositories on the Hub, and paths that are none."""

from __future__ import annotations

import pytest

from vqtok.names import KNOWN, is_hub_id


@pytest.mark.parametrize("name", ["org/vq-digits", "some.one/thing-2", "a/b", "_x/y_"])
def test_owner_and_name_are_a_repository(name: str) -> None:
    assert is_hub_id(name)


@pytest.mark.parametrize("name", ["digits", "./digits", "../digits", "~/digits", "/a/b", "a/b/c", "a/", "", "a b/c"])
def test_paths_are_none(name: str) -> None:
    assert not is_hub_id(name)


def test_every_short_name_but_that_in_the_package_is_one_of_the_hub() -> None:
    assert [name for name, repository in KNOWN.items() if not is_hub_id(repository)] == ["mnist-mini"]
