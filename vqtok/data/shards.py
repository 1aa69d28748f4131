"""Tar files in the form of webdataset, whose images need not all have the same suffix.

`datasets` makes a column of every suffix and decides by the first rows which columns there are: where 0.png and 1.jpg
are rows of one archive, it drops every image of the kind that comes later.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import fsspec
from datasets.packaged_modules.webdataset.webdataset import WebDataset
from datasets.utils.file_utils import ArchiveIterable

__all__ = ["Shards"]


REMOTE = re.compile(r"(?!hf:|https?:|file:)[a-z][\w+.-]+://")
"""Addresses that `datasets` hands an argument (block_size) on to with which s3fs cannot open them."""


class RemoteArchive:
    """The files of a tar file at an address, as often as it is asked for them."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Any]:
        with fsspec.open(self.path, "rb") as file:
            yield from ArchiveIterable.from_buf(file)


class Shards(WebDataset):  # type: ignore[misc]  # datasets ships no annotations
    """Rows with the image in the column image, whatever its suffix; 0.mask.png is in the column mask.image.

    Of several images with one name, as 0.jpg and 0.png, each stays in the column of its suffix.
    """

    IMAGE_EXTENSIONS = [*WebDataset.IMAGE_EXTENSIONS, "image"]

    def _split_generators(self, dl_manager: Any) -> Any:
        usual = dl_manager.iter_archive
        dl_manager.iter_archive = lambda path: RemoteArchive(path) if REMOTE.match(str(path)) else usual(path)
        return super()._split_generators(dl_manager)

    def _get_pipeline_from_tar(self, tar_path: str, tar_iterator: Any) -> Iterator[dict[str, Any]]:
        for example in super()._get_pipeline_from_tar(tar_path, tar_iterator):
            yield self.renamed(example, self.info.features)

    @classmethod
    def renamed(cls, example: Mapping[str, Any], known: Collection[str] | None) -> dict[str, Any]:
        """A row by its columns rather than by the fields that its files are called.

        Args:
            known: the columns of the first rows, once these are found.
        """
        columns = {field: cls.column(field, known) for field in example}
        times = Counter(columns.values())
        return {columns[field] if times[columns[field]] == 1 else field: value for field, value in example.items()}

    @classmethod
    def column(cls, field: str, known: Collection[str] | None) -> str:
        """The column of a field, of an image without its suffix, unless no such column is known.

        A field is all of a file's name behind its first dot.
        """
        prefix, dot, suffix = field.rpartition(".")
        column = f"{prefix}{dot}image" if suffix.lower() in cls.IMAGE_EXTENSIONS else field
        return column if known is None or column in known else field
