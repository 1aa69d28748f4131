"""What the name of a model or of a dataset can stand for beside a folder."""

from __future__ import annotations

import os
import re

__all__ = ["KNOWN", "at_revision", "findable", "hub_name", "is_gone", "is_hub_id", "meaning"]

KNOWN = {"cifar10": "uoft-cs/cifar10", "mnist": "ylecun/mnist", "mnist-mini": "mnist-mini"}
"""Datasets with a short name, and the Hub id of each; mnist-mini is in the package."""


def is_hub_id(name: str) -> bool:
    """Whether a name can be that of a repository on the Hub: owner/name."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None


def hub_name(name: str) -> tuple[str, str | None] | None:
    """The repository and revision of owner/name or owner/name@revision; None of another name, or of something here."""
    repository, _, revision = name.partition("@")
    return (repository, revision or None) if is_hub_id(repository) and not os.path.exists(name) else None


def meaning(dataset: str) -> tuple[str, str | None]:
    """What the name of a dataset stands for, the same however it is written, and the revision in it.

    That is a Hub id, `mnist-mini` or the real path of what is on this disk, which has no revision.
    """
    if dataset in KNOWN:
        return KNOWN[dataset], None
    path = os.path.expanduser(dataset)
    if os.path.exists(path):
        return os.path.realpath(path), None
    return hub_name(dataset) or (os.path.abspath(path), None)


def findable(dataset: str) -> str:
    """The name of a dataset as it is understood in any working folder: of a folder or file here its absolute path."""
    path = os.path.expanduser(dataset)
    return os.path.abspath(path) if dataset not in KNOWN and os.path.exists(path) else dataset


def is_gone(dataset: str) -> bool:
    """Whether a dataset that `findable` named was on this disk and is no longer there."""
    return os.path.isabs(dataset) and not os.path.exists(dataset)


def at_revision(dataset: str, revision: str | None) -> str:
    """The name of a dataset with its revision, `org/name@revision`, where it has one."""
    repository, _ = meaning(dataset)
    return f"{repository}@{revision}" if revision and is_hub_id(repository) else dataset
