"""Whether a plan reads what its dataset is, and nothing else.

A codes folder may come from somebody else, with a plan that was begun. Followed blindly, a plan that asks for the
images of a well-known dataset and names files of this machine would turn `tokenize` into a way to copy them.
"""

from __future__ import annotations

import glob
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from datasets.naming import camelcase_to_snakecase
from huggingface_hub.file_download import repo_folder_name

from vqtok.codes.plan import PLAN, Plan, SplitPlan
from vqtok.data.globs import is_address, is_pattern, local_path
from vqtok.data.paths import DatasetRoot
from vqtok.data.rows import Rows
from vqtok.data.tables import table_kind
from vqtok.errors import DataError
from vqtok.names import is_hub_id, meaning
from vqtok.store import Store, file_system

__all__ = ["check_origin", "planned_rows"]


def planned_rows(plan: Plan, store: Store) -> dict[str, Rows]:
    """The rows of each split of a plan; nothing is read.

    Raises:
        DataError: the description of them is damaged.
    """
    return {split.name: _rows(split, store) for split in plan.splits}


def check_origin(plan: Plan, store: Store) -> None:
    """Refuse a plan that reads files which are no part of its dataset.

    Raises:
        DataError: names the first of them.
    """
    may_be_read = _Dataset(plan.request.dataset)
    for split in plan.splits:
        listed = re.compile(rf"plan/{re.escape(split.name)}/\d+\.arrow")
        source = _rows(split, store)
        if not may_be_read.has_root(source.root):
            raise _strange(plan, store, str(source.root.folder))
        for entry in split.source["files"]:
            if not listed.fullmatch(entry["path"]) and not may_be_read.has(entry["path"]):
                raise _strange(plan, store, entry["path"])


def _rows(split: SplitPlan, store: Store) -> Rows:
    rows = Rows.from_json(split.source, base=store.place)
    if len(rows) != split.rows:
        raise DataError(f"{store.path(PLAN)} is damaged: {split.name} has {split.rows:,} rows, its files {len(rows):,}")
    return rows


def _strange(plan: Plan, store: Store, path: str) -> DataError:
    return DataError(
        f"{store.path(PLAN)} reads {path}, which is no part of {plan.request.dataset}: it was made elsewhere or "
        "edited; choose another folder, or pass --overwrite to begin anew"
    )


class _Dataset:
    """Which paths are parts of a dataset, by its name alone: it may be gone from this disk."""

    def __init__(self, name: str) -> None:
        name = local_path(name)
        path = os.path.expanduser(name)
        named, _ = meaning(name)
        self.is_on_hub = not os.path.exists(path) and not os.path.isabs(named) and is_hub_id(named)
        self.folders: tuple[str, ...] = ()  # each ends with a separator
        self.parts: tuple[str, ...] = ()  # what the caches of huggingface_hub and datasets call its folder
        if self.is_on_hub:
            owner, _, own = named.partition("/")
            self.folders = (f"hf://datasets/{named}@",)
            self.parts = (
                repo_folder_name(repo_id=named, repo_type="dataset"),
                f"{owner}___{camelcase_to_snakecase(own)}",
            )
        elif is_address(name):
            self.folders = (_address_of(name),)
        elif named != "mnist-mini":
            folder = os.path.abspath(_above(path))
            self.folders = tuple(os.path.join(each, "") for each in (folder, os.path.realpath(folder)))

    def has(self, path: str) -> bool:
        """Whether a file of rows is one of the dataset."""
        parts = Path(path).parts
        if ".." in parts:
            return False
        return path.startswith(self.folders) or (os.path.isabs(path) and not set(self.parts).isdisjoint(parts))

    def has_root(self, root: DatasetRoot) -> bool:
        """Whether images in files of their own are looked for in the dataset alone."""
        if root.folder is None:
            return True
        real = os.path.join(os.path.realpath(root.folder), "")
        if self.is_on_hub:
            return not root.follow_links and self.has(real)
        own = os.path.join(os.path.abspath(root.folder), "")
        return own.startswith(self.folders) and (root.follow_links or real.startswith(self.folders))


def _above(path: str) -> str:
    """The folder of a dataset on this disk that is a folder, a file of rows or a pattern of such files."""
    if is_pattern(path) and not os.path.exists(path):
        return os.path.dirname(_beginning(path))
    return path if table_kind(path) is None or os.path.isdir(path) else os.path.dirname(path)


def _address_of(name: str) -> str:
    """The folder of an address or of a pattern of addresses, as `matching_addresses` writes it."""
    beginning = _beginning(name)
    if re.match("https?://", name):
        return posixpath.dirname(beginning) + "/"
    system, _ = file_system(name)
    inside: Any = system._strip_protocol(beginning)
    folder = posixpath.dirname(inside) if is_pattern(name) or table_kind(name) else inside
    return f"{system.unstrip_protocol(folder).rstrip('/')}/"


def _beginning(pattern: str) -> str:
    """What comes before all that stands for other names."""
    found = re.search(r"[*?\[{]", pattern)
    return pattern[: found.start()] if found and (glob.has_magic(pattern) or is_pattern(pattern)) else pattern
