"""What a user can mend, as one line; everything else stays a traceback. The scripts beside the command use it too."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["mistakes_in_one_line", "user_message"]

NO_MEMORY = re.compile("out of memory|allocate memory")
"""What torch says where there is none left."""


@contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """End with a line on stderr and status 2 for a mistake of the user, of bad images 3."""
    try:
        yield
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        from vqtok.errors import BadImagesError
        from vqtok.text import printable

        print(printable(f"vqtok: error: {message}"), file=sys.stderr)  # by whichever process has it
        sys.exit(3 if isinstance(error, BadImagesError) else 2)


def user_message(error: Exception) -> str | None:
    """One line for what a user can mend, None for a bug of ours."""
    from huggingface_hub.errors import StrictDataclassError

    from vqtok.errors import VqtokError, one_line
    from vqtok.files import BAD_PATH, DENIED, NO_ROOM

    if isinstance(error, VqtokError | StrictDataclassError):
        return one_line(error)
    if isinstance(error, OSError) and error.errno in (NO_ROOM | DENIED):
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}: free some space or choose a folder that can be written"
    if isinstance(error, OSError) and error.errno in BAD_PATH:
        return f"{error.strerror} ({error.filename}): give another path"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and NO_MEMORY.search(str(error))):
        return f"not enough memory: take a smaller batch, network or codebook ({one_line(error)})"
    return None
