"""Tar files in the form of webdataset, whose images need not all have the same suffix.

`datasets` makes a column of every suffix and decides by the first rows which columns there are: where 0.png and 1.jpg
are rows of one archive, it drops every image of the kind that comes later.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import fsspec
from datasets.filesystems import EXTENSION_TO_COMPRESSION_FS_FILE_CLS
from datasets.packaged_modules.webdataset.webdataset import WebDataset
from datasets.utils.file_utils import ArchiveIterable

__all__ = ["Shards", "bounded"]


REMOTE = re.compile(r"(?!hf:|https?:|file:)[a-z][\w+.-]+://")
"""Addresses that `datasets` hands an argument (block_size) on to with which s3fs cannot open them."""


MOST_UNPACKED = 64 << 20  # bytes of a compressed file in an archive
BLOCK = 1 << 20


class RemoteArchive:
    """The files of a tar file at an address, as often as it is asked for them."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Any]:
        with fsspec.open(self.path, "rb") as file:
            yield from ArchiveIterable.from_buf(file)


def bounded(members: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The files of an archive, each of which takes about the memory that its bytes there do: see `MOST_UNPACKED`.

    Raises:
        ValueError: names one that is sparse, or that unpacks to more.
    """
    for name, file in members:
        if any(not part[0] for part in getattr(getattr(file, "raw", None), "map", ())):  # of tarfile: a hole
            raise ValueError(f"{name} is sparse: most of it is not in the archive")
        unpack = EXTENSION_TO_COMPRESSION_FS_FILE_CLS.get(f".{name.rpartition('.')[2].lower()}")
        if unpack is not None:  # which `datasets` does with all of it at once
            file, size = io.BytesIO(file.read()), 0
            with unpack(io.BytesIO(file.getbuffer()), mode="rb") as unpacked:
                while block := unpacked.read(BLOCK):
                    size += len(block)
                    if size > MOST_UNPACKED:
                        raise ValueError(f"{name} unpacks to more than {MOST_UNPACKED:,} bytes")
        yield name, file


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
        for example in super()._get_pipeline_from_tar(tar_path, bounded(tar_iterator)):
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
