"""Where the paths in a dataset may lead: below its own folder, and nowhere else on this machine or another.

Whoever made a dataset decides what its paths say. Followed blindly, a row with the path of a private file would turn
that file into an image of the dataset, and `tokenize` into a way to copy it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vqtok.errors import DataError

__all__ = ["DatasetRoot"]


@dataclass(frozen=True)
class DatasetRoot:
    """The folder that the paths in a dataset belong to.

    Attributes:
        folder: relative paths are below it, and no path may leave it; None follows no path at all.
        follow_links: links inside the folder may lead out of it. They may in a folder of images that the user names,
            whose links are the user's own choice, and not where the paths come from a file.
    """

    folder: str | None = None
    follow_links: bool = False

    def check_there(self) -> None:
        """Refuse to take files for missing where all of them are: no disk is mounted there, or the folder was moved.

        Raises:
            DataError: the folder is gone or empty.
        """
        if self.folder is None:
            return
        try:
            with os.scandir(self.folder) as entries:
                if next(entries, None) is not None:
                    return
            what = "is empty now"
        except OSError as error:
            what = f"cannot be read now ({error.strerror})"
        raise DataError(f"the folder {self.folder} {what}: put the images back, or mount their disk, and run again")

    def find(self, path: str, name: str) -> Path:
        """The file that a path in the dataset leads to.

        Args:
            name: what an error calls the row.

        Raises:
            DataError: an address (`file:`, `https:`, `zip:`), or a path that leads out of the folder.
        """
        if not os.path.isabs(path) and ("://" in path or "::" in path):
            raise DataError(f"{name} is not read: {path!r} is an address, and only paths in the dataset are followed")
        if self.folder is None:
            raise DataError(f"{name} is not read: it has no bytes, and the dataset has no folder for its path {path!r}")
        straight = os.path.abspath if self.follow_links else os.path.realpath
        try:
            folder, file = straight(self.folder), straight(os.path.join(self.folder, path))
        except ValueError as error:  # a null byte
            raise DataError(f"{name} is not read: {path!r} is no path ({error})") from error
        if not file.startswith(os.path.join(folder, "")):
            raise DataError(f"{name} is not read: {path!r} leads out of the dataset's own folder {folder}")
        return Path(file)
