"""Serve an empty test Hub until Ctrl-C: `python -m tests.hub_server [port]` from the repository's root."""

from __future__ import annotations

import contextlib
import sys
import threading

from tests.hub_server.server import HubServer

with HubServer({"hf_dev": "dev"}, {"org": ["dev"]}, port=int(sys.argv[1]) if len(sys.argv) > 1 else 0) as hub:
    print(f"export HF_ENDPOINT={hub.url} HF_TOKEN=hf_dev HF_HUB_DISABLE_XET=1", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
