"""Try again what failed for a passing reason: a server that is busy or broken, a connection that was cut, a timeout.

The clients of the Hub and of S3 try again by themselves for some seconds, where they do at all. What lasts longer is
waited for here, and a warning says so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import httpx2

from vqtok.errors import one_line

__all__ = ["Attempts", "is_passing", "persistently"]

T = TypeVar("T")

WAITS = (1.0, 5.0, 20.0)
"""Seconds before the second, third and fourth attempt. S3 answers 503 for moments, a Hub that restarts for half a
minute."""

STATUSES = {408, 429, 500, 502, 503, 504}
ERRORS = (
    TimeoutError,
    ConnectionResetError,
    ConnectionAbortedError,
    BrokenPipeError,
    httpx2.TimeoutException,
    httpx2.ReadError,
    httpx2.WriteError,
    httpx2.RemoteProtocolError,
)
NAMES = {
    "ClientPayloadError",  # of aiohttp
    "ServerDisconnectedError",
    "ConnectTimeoutError",  # of botocore
    "ConnectionClosedError",
    "ReadTimeoutError",
}
"""Errors of packages that need not be installed."""

logger = logging.getLogger(__name__)


class Attempts:
    """How often something was tried.

    Args:
        doing: what a warning calls it, such as "reading s3://bucket/a.tar".
    """

    def __init__(self, doing: str) -> None:
        self.doing = doing
        self._failed = 0

    def again(self, error: BaseException) -> bool:
        """Wait after a failure that may pass; False, at once, where it will not, or where it was the last attempt."""
        if self._failed == len(WAITS) or not is_passing(error):
            return False
        wait = WAITS[self._failed]
        self._failed += 1
        logger.warning(
            "%s failed (%s): trying again in %g s, %d of %d",
            self.doing,
            one_line(error),
            wait,
            self._failed,
            len(WAITS),
        )
        time.sleep(wait)
        return True


def persistently(do: Callable[[], T], doing: str) -> T:
    """Do something, again where it fails for a passing reason; the last failure is raised."""
    attempts = Attempts(doing)
    while True:
        try:
            return do()
        except Exception as error:
            if not attempts.again(error):
                raise


def is_passing(error: BaseException) -> bool:
    """Whether an error, or what caused it, is of a kind that passes.

    An address at which nobody answers is not: most often it is wrong, or there is no network.
    """
    return any(
        _status(each) in STATUSES
        or isinstance(each, ERRORS)
        or not NAMES.isdisjoint(kind.__name__ for kind in type(each).__mro__)
        for each in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _status(error: BaseException) -> object:
    """The HTTP status in an error of httpx2, botocore or aiohttp, None where it has none."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return getattr(response, "status_code", None) or getattr(error, "status", None)
