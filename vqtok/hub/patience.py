"""A Hub that is busy or restarts is waited for: of what `huggingface_hub` asks, only some requests are tried again.

It tries downloads of files and uploads again, and gives up at the first 503 where it asks what a repository holds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from typing import Any

import httpx2
from huggingface_hub import get_session, set_client_factory

from vqtok.retries import Attempts, is_passing

__all__ = ["be_patient"]

GIVEN_UP = 60.0
"""Seconds after a Hub was waited for in vain during which nothing waits for it again: `huggingface_hub` also tries."""


@cache
def be_patient() -> None:
    """From now on have `huggingface_hub`, and so `datasets`, try again in this process what a busy Hub refuses."""
    usual = get_session()
    settings: Mapping[str, Any] = {
        "event_hooks": usual.event_hooks,
        "follow_redirects": usual.follow_redirects,
        "timeout": usual.timeout,
    }
    set_client_factory(lambda: PatientClient(**settings))


class PatientClient(httpx2.Client):
    """Sends a request again after an answer or failure that may pass, where its content can be sent again."""

    given_up = -GIVEN_UP  # when

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """As `httpx2.Client.send`; gives the last answer, or raises the last failure."""
        if not isinstance(request.stream, httpx2.ByteStream) or time.monotonic() - self.given_up < GIVEN_UP:
            return super().send(request, **options)
        attempts = Attempts(f"{request.method} {request.url.copy_with(query=None)}")
        while True:
            try:
                response = super().send(request, **options)
            except httpx2.TransportError as error:
                if not self._again(attempts, error):
                    raise
                continue
            refused = httpx2.HTTPStatusError(
                f"the Hub answered {response.status_code}", request=request, response=response
            )
            if not is_passing(refused) or not self._again(attempts, refused):
                return response
            response.close()

    def _again(self, attempts: Attempts, error: Exception) -> bool:
        if attempts.again(error):
            return True
        if is_passing(error):
            self.given_up = time.monotonic()
        return False
