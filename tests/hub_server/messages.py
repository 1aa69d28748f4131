"""What travels between the test Hub's HTTP side and its routes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Any
from urllib.parse import parse_qs

__all__ = ["Request", "Response"]


@dataclass(frozen=True)
class Request:
    """What a route gets."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Message  # its keys do not mind upper and lower case
    body: bytes
    base: str  # the server's own address

    @property
    def token(self) -> str | None:
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        return token if kind == "Bearer" else None

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    @property
    def form(self) -> Any:
        """JSON or an HTML form: the clients send both to the same routes."""
        return self.json if self.body.startswith(b"{") else parse_qs(self.body.decode())


@dataclass(frozen=True)
class Response:
    """What a route gives: `body` is bytes or anything that JSON holds, `length` that of the body a HEAD leaves out."""

    body: Any = b""
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
