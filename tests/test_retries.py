"""What passes is tried again a few times, with a warning each; anything else is not."""

from __future__ import annotations

import logging

import httpx2
import pytest

from vqtok import retries
from vqtok.errors import DataError
from vqtok.retries import is_passing, persistently


def answered(status: int) -> httpx2.HTTPStatusError:
    request = httpx2.Request("GET", "http://hub/x")
    return httpx2.HTTPStatusError("refused", request=request, response=httpx2.Response(status, request=request))


class OfBotocore(Exception):
    response = {"ResponseMetadata": {"HTTPStatusCode": 503}}


class OfAiohttp(Exception):
    status = 429


class ServerDisconnectedError(Exception):
    """As that of aiohttp is called."""


def caused_by(error: Exception) -> DataError:
    made = DataError("one line")
    made.__cause__ = error
    return made


@pytest.mark.parametrize(
    "error",
    [*map(answered, (429, 500, 502, 503, 504)), OfBotocore(), OfAiohttp(), ServerDisconnectedError()]
    + [TimeoutError(), ConnectionResetError(), httpx2.ReadTimeout(""), httpx2.RemoteProtocolError("")],
    ids=repr,
)
def test_what_passes(error: Exception) -> None:
    assert is_passing(error) and is_passing(caused_by(error))


@pytest.mark.parametrize(
    "error",
    [*map(answered, (400, 401, 403, 404, 501)), ConnectionRefusedError(), httpx2.ConnectError(""), FileNotFoundError()]
    + [ValueError("503")],
    ids=repr,
)
def test_what_does_not_pass(error: Exception) -> None:
    assert not is_passing(error) and not is_passing(caused_by(error))


def test_it_is_tried_again_with_a_warning_and_in_the_end_the_error_is_raised(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(retries, "WAITS", (1.0, 5.0, 20.0))
    monkeypatch.setattr(retries.time, "sleep", waited.append)
    answers = [TimeoutError("slow\nvery"), answered(503), None]

    def do() -> str:
        answer = answers.pop(0)
        if answer:
            raise answer
        return "done"

    with caplog.at_level(logging.WARNING):
        assert persistently(do, "reading x") == "done"
    assert waited == [1.0, 5.0]
    assert caplog.messages == [
        "reading x failed (slow very): trying again in 1 s, 1 of 3",
        "reading x failed (refused): trying again in 5 s, 2 of 3",
    ]
    answers[:] = [TimeoutError()] * 9
    with pytest.raises(TimeoutError):
        persistently(do, "reading x")
    assert len(answers) == 9 - 4
    answers[:] = [ValueError(), None]
    with pytest.raises(ValueError):
        persistently(do, "reading x")
    assert len(answers) == 1
