"""How many pixels may be decoded at one time, so that many threads with large images do not fill the memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from PIL import _imaging

__all__ = ["DECODING", "PixelBudget"]

# One image of the largest size that Pillow allows (89 million pixels), or eight of 12 megapixels. A pixel takes 1 to 4
# bytes once it is decoded, twice that while it is turned upright, and more inside some decoders.
PIXELS_AT_A_TIME = 100_000_000
# Bytes of the blocks that Pillow keeps an image in. glibc gives those above 32 MiB back to the system at once and keeps
# smaller ones for the thread that had them: with Pillow's 16 MiB, eight threads that each decoded 80 megapixels in turn
# held 2.3 GB, with 64 MiB 0.4 GB.
PILLOW_BLOCK = 64 << 20


class PixelBudget:
    """A semaphore that is counted in pixels.

    Args:
        limit: pixels that may be in flight at a time. A larger image waits until it is alone.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.reset()

    def reset(self) -> None:
        """Forget what is in flight, as a forked process must: the threads that would give it back are not in it."""
        self._in_flight = 0
        self._changed = Condition()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Wait until so many pixels are free, and give them back at the end."""
        pixels = min(pixels, self.limit)
        with self._changed:
            self._changed.wait_for(lambda: self._in_flight + pixels <= self.limit)
            self._in_flight += pixels
        try:
            yield
        finally:
            with self._changed:
                self._in_flight -= pixels
                self._changed.notify_all()


_imaging.set_block_size(max(PILLOW_BLOCK, _imaging.get_block_size()))
DECODING = PixelBudget(PIXELS_AT_A_TIME)  # of this process; each process of a DataLoader has its own
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=DECODING.reset)
