"""The HTTP side of the test Hub: a table of routes, and the small protocol that all of them share."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_server.messages import Request, Response
from tests.hub_server.routes import ROUTES
from tests.hub_server.store import Commit, Refusal, Store

__all__ = ["HubServer"]


class Refusals:
    """How often, and how, a request is refused before it is let through."""

    def __init__(self) -> None:
        self.begin(0, 503)

    def begin(self, times: int, status: int) -> None:
        self.times, self.status = times, status
        self._refused: dict[tuple[str, str], int] = {}

    def check(self, method: str, path: str) -> None:
        refused = self._refused.get((method, path), 0)
        if refused < self.times:
            self._refused[method, path] = refused + 1
            raise Refusal(self.status, "slow down")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Store
    requests: list[tuple[str, str, int]]
    refusals: Refusals

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr: what was asked is kept in `requests`."""

    def read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return body

    def answer(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        base = f"http://{self.headers['Host']}"
        request = Request(self.command, url.path, query, self.headers, self.read_body(), base)
        try:
            self.refusals.check(self.command, self.path)
            response = self.route(request)
        except Refusal as refusal:
            headers = {"X-Error-Message": refusal.message, **refusal.headers}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            response = Response({"error": refusal.message}, refusal.status, headers=headers)
        self.requests.append((self.command, self.path, response.status))
        self.send(response)

    def route(self, request: Request) -> Response:
        for methods, pattern, function in ROUTES:
            if request.method in methods and (match := re.fullmatch(pattern, request.path)):
                parts = {name: unquote(value or "") for name, value in match.groupdict().items()}
                with self.store.lock:
                    return function(self.store, request, **parts)
        raise Refusal(404, f"the test Hub has no route for {request.method} {request.path}")

    def send(self, response: Response) -> None:
        body = response.body if isinstance(response.body, bytes) else json.dumps(response.body).encode()
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(body) if response.length is None else response.length))
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer


class HubServer:
    """A test Hub on a free port of this machine, serving in a thread from construction until `close`.

    Args:
        users: access token -> user name.
        organizations: organisation -> its members.
        read_only: tokens that may write nothing.
        port: 0 takes a free one.
    """

    def __init__(
        self,
        users: Mapping[str, str],
        organizations: Mapping[str, Sequence[str]] | None = None,
        read_only: Sequence[str] = (),
        port: int = 0,
    ):
        self.store = Store(users, organizations, read_only)
        self.requests: list[tuple[str, str, int]] = []  # method, path with its query, status: every answer in order
        self.refusals = Refusals()
        bound = {"store": self.store, "requests": self.requests, "refusals": self.refusals}
        handler = type("BoundHandler", (Handler,), bound)
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def commits(self, repo_id: str, revision: str = "main", kind: str = "model") -> list[Commit]:
        """What was committed to a branch after the repository's empty first commit, newest first."""
        return [c for c in self.store.repositories[kind, repo_id].history(revision) if c.parent]

    def read(self, repo_id: str, path: str, revision: str = "main", kind: str = "model") -> bytes:
        """The content of one file."""
        return self.store.blobs[self.store.repositories[kind, repo_id].at(revision).files[path].sha256]

    def client_environment(self, token: str | None, home: Path) -> dict[str, str]:
        """The variables that send a client here: this address, this token, and a cache below `home`."""
        environment = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",  # plain LFS uploads: the Xet protocol is not served here
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        return environment if token is None else {**environment, "HF_TOKEN": token}

    def refuse(self, times: int, status: int = 503) -> None:
        """From now on, answer every request so many times with this status before it is let through."""
        self.refusals.begin(times, status)

    def close(self) -> None:
        """Stop serving: from then on a client finds nobody at this address."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> HubServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
