"""A Hub that refuses every request a few times, with 503 as when it is busy, is waited for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hub.conftest import RunClient
from tests.hub_server import HubServer

QUICKLY = """
import time
from vqtok import retries
from vqtok.hub import be_patient, fetch, push
retries.WAITS = (0, 0, 0)
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.01))  # huggingface_hub waits too
be_patient()
"""


def test_a_model_goes_up_and_down(hub: HubServer, run: Path, run_client: RunClient) -> None:
    hub.refuse(2)
    code = f"{QUICKLY}print(push({str(run / 'model')!r}, 'org/vq'), len(list(fetch('org/vq').iterdir())))"
    assert run_client(code) == f"{hub.url}/org/vq 3\n"
    assert len([status for _, _, status in hub.requests if status == 503]) > 20
    assert len(hub.commits("org/vq")) == 1


@pytest.mark.parametrize("status", [503, 500])
def test_one_that_does_not_recover_is_one_error_after_a_few_attempts(
    hub: HubServer, run_client: RunClient, status: int
) -> None:
    hub.refuse(10**6, status)
    said = run_client(f"{QUICKLY}fetch('org/vq')", fails=True)
    assert said.splitlines()[-1] == f"vqtok.errors.HubError: the Hub answered {status} for org/vq: slow down"
    asked = [path for _, path, _ in hub.requests if "config.json" in path]
    assert 4 <= len(asked) <= 20
    assert f"failed (the Hub answered {status}): trying again" in said
