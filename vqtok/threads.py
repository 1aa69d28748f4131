"""The end of a process whose threads are in the midst of their work."""

from __future__ import annotations

import os
import sys
import threading

__all__ = ["end_at_once"]


def end_at_once(code: int) -> None:
    """End the process where its threads still work, for which Python would wait; else return.

    Call it once all is cleaned up and nobody needs what the threads do.
    """
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
