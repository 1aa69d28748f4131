"""What becomes of the files of a dataset once `readers.py` has found them: splits, in the cache or as they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from datasets import Dataset, DatasetBuilder

from vqtok.data.folders import FolderFiles, Paths, image_folder_splits
from vqtok.data.paths import DatasetRoot
from vqtok.data.tables import build

__all__ = ["InCache", "NamedSplits", "Reading"]

S = TypeVar("S")


@dataclass(frozen=True, kw_only=True)
class NamedSplits(Generic[S]):
    """A dataset as its source has it.

    Attributes:
        splits: by name, in the source's order.
        resolved: the Hub id or the absolute path behind the name.
        revision: the commit on the Hub, where there is one.
        root: where paths in the dataset may lead.
        notes: what the user should know.
    """

    splits: dict[str, S]
    resolved: str
    revision: str | None = None
    root: DatasetRoot = DatasetRoot()
    notes: tuple[str, ...] = ()


class Reading(Protocol[S]):
    """What becomes of the files of a dataset once they are found."""

    def new_files(self, root: Path) -> FolderFiles:
        """Where the paths below a folder are put."""

    def build(self, builder: DatasetBuilder, own: str, /) -> dict[str, S]:
        """The splits of the files that a builder found; arguments and errors are those of `tables.build`."""

    def keep(self, splits: Mapping[str, Dataset], /) -> dict[str, S]:
        """The splits of what is loaded already."""

    def image_folder(self, root: Path, name: str, images: Paths, /) -> tuple[dict[str, S], tuple[str, ...]]:
        """The splits of a folder of images; arguments and errors are those of `folders.image_folder_splits`."""

    def metadata(self, root: Path, splits: Mapping[str, Dataset], /) -> dict[str, S]:
        """The splits of what `read_metadata` gives."""


class InCache:
    """Every split as a `Dataset`, which `datasets` keeps in its cache."""

    build = staticmethod(build)
    image_folder = staticmethod(image_folder_splits)

    def new_files(self, root: Path) -> FolderFiles:
        return FolderFiles()

    def keep(self, splits: Mapping[str, Dataset]) -> dict[str, Dataset]:
        return dict(splits)

    def metadata(self, root: Path, splits: Mapping[str, Dataset]) -> dict[str, Dataset]:
        return dict(splits)
