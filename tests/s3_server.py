"""An S3 on this machine for tests: moto's server, spoken to over HTTP, which counts requests and can fail at will."""

from __future__ import annotations

import os
import re
import threading
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

__all__ = ["BUCKET", "S3Server"]

BUCKET = "bucket"
ERROR = b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>slow down</Message></Error>'

Start = Callable[[str, list[tuple[str, str]]], Any]


class Quiet(WSGIRequestHandler):
    """Nothing on stderr: what was asked is kept in `S3Server.requests`."""

    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: object) -> None:
        """Nothing."""


class S3Server:
    """An S3 on a free port, with one bucket, serving in a thread from construction until `close`."""

    def __init__(self) -> None:
        self._s3 = DomainDispatcherApplication(create_backend_app)
        self.requests: list[tuple[str, str, int]] = []  # method, path with its query, status: every answer in order
        self._refused: dict[tuple[str, str], int] = {}
        self.refuse(0)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=Quiet)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        self._ask("PUT", f"/{BUCKET}")
        self.requests.clear()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that send a client of S3 here."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
        }

    def refuse(self, times: int, status: int = 503, *, only: str = "") -> None:
        """Answer requests so many times with this status before they are let through.

        Args:
            only: a regular expression that their method and path hold; by default all of them.
        """
        self._refusals, self._status, self._only = times, status, re.compile(only)
        self._refused.clear()

    def put(self, name: str, data: bytes) -> None:
        """Put a file into the bucket."""
        self._ask("PUT", f"/{BUCKET}/{name}", data)

    def _ask(self, method: str, path: str, data: bytes | None = None) -> None:
        key = "AWS4-HMAC-SHA256 Credential=somebody/20300101/us-east-1/s3/aws4_request"
        request = urllib.request.Request(
            self.url + path, data, {"Authorization": key, "Content-Type": "application/octet-stream"}, method=method
        )
        urllib.request.urlopen(request).close()

    def _answer(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        query = environ.get("QUERY_STRING")
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"] + (f"?{query}" if query else "")
        answered = self._refused.get((method, path), 0)
        if answered < self._refusals and self._only.search(f"{method} {path}"):
            self._refused[method, path] = answered + 1
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            self.requests.append((method, path, self._status))
            start(f"{self._status} refused", [("Content-Type", "text/xml"), ("Content-Length", str(len(ERROR)))])
            return [b"" if method == "HEAD" else ERROR]

        def note(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            self.requests.append((method, path, int(status.split()[0])))
            return start(status, headers, *rest)

        return self._s3(environ, note)

    def close(self) -> None:
        """Forget everything and stop serving."""
        self.refuse(0)
        self._ask("POST", "/moto-api/reset", b"")
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> S3Server:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
