"""Tar files in the form of webdataset, whose images need not all have the same suffix.

`datasets` makes a column of every suffix and decides by the first rows which columns there are: where 0.png and 1.jpg
are rows of one archive, it drops every image of the kind that comes later.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from datasets.packaged_modules.webdataset.webdataset import WebDataset

__all__ = ["Shards"]


class Shards(WebDataset):  # type: ignore[misc]  # datasets ships no annotations
    """Rows with the image in the column image, whatever its suffix; 0.mask.png is in the column mask.image."""

    IMAGE_EXTENSIONS = [*WebDataset.IMAGE_EXTENSIONS, "image"]

    @classmethod
    def column(cls, field: str) -> str:
        """The column of a field, which is all of a file's name behind its first dot."""
        prefix, dot, suffix = field.rpartition(".")
        return f"{prefix}{dot}image" if suffix.lower() in cls.IMAGE_EXTENSIONS else field

    @classmethod
    def _get_pipeline_from_tar(cls, tar_path: str, tar_iterator: Any) -> Iterator[dict[str, Any]]:
        for example in super()._get_pipeline_from_tar(tar_path, tar_iterator):
            row: dict[str, Any] = {}
            for field, content in example.items():
                column = cls.column(field)
                row[field if column in row else column] = content
            yield row
