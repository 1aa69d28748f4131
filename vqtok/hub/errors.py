"""What the Hub's clients raise, said again as one line with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from vqtok.errors import HubError

__all__ = ["hub_errors"]

# httpx2.HTTPError holds every failure of the connection, and every refusal by the Hub.
CLIENT_ERRORS = (
    httpx2.HTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)
LOGIN = "run `hf auth login`, or set HF_TOKEN"


@contextmanager
def hub_errors(repo_id: str, token: str | None = None) -> Iterator[None]:
    """Turn what the Hub's clients raise inside the block into a HubError about this repository."""
    try:
        yield
    except CLIENT_ERRORS as error:
        raise HubError(explain(error, repo_id, token)) from error
    except UnicodeEncodeError as error:
        raise HubError(f"{error.object!r} is not UTF-8, and cannot be a name on the Hub: give another") from error
    except RuntimeError as error:  # what an upload of large files makes of its failures
        if not isinstance(error.__cause__, CLIENT_ERRORS):
            raise
        raise HubError(explain(error.__cause__, repo_id, token)) from error


def explain(error: Exception, repo_id: str, token: str | None) -> str:
    """One line: what happened and what to do."""
    if isinstance(error, HFValidationError):
        return (
            f"{repo_id!r} is not a repository id: write owner/name with letters, digits, '-', '_' and '.', "
            "at most 96 characters"
        )
    if isinstance(error, LocalTokenNotFoundError):
        return f"no access token for the Hub: {LOGIN}"
    if isinstance(error, OfflineModeIsEnabled):
        return f"{repo_id} needs the network, and HF_HUB_OFFLINE is set: unset it"
    if isinstance(error, LocalEntryNotFoundError) and constants.is_offline_mode():
        return f"{repo_id} is not in the cache, and HF_HUB_OFFLINE is set: unset it"
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, HfHubHTTPError):
        return explain_status(error.__cause__, repo_id, token)
    if isinstance(error, LocalEntryNotFoundError):
        return f"{repo_id} is not in the cache and the Hub at {constants.ENDPOINT} cannot be reached: check the network"
    if not isinstance(error, HfHubHTTPError):
        reason = f" ({error})" if str(error) else ""
        return f"the Hub at {constants.ENDPOINT} cannot be reached{reason}: check the network and HF_ENDPOINT"
    return explain_status(error, repo_id, token)


def explain_status(error: HfHubHTTPError, repo_id: str, token: str | None) -> str:
    """The same for an answer of the Hub other than 2xx."""
    status = error.response.status_code
    known = token or get_token()
    if isinstance(error, RevisionNotFoundError):
        return f"{repo_id} has no such revision: give a branch, a tag or a commit of it"
    if isinstance(error, RepositoryNotFoundError):
        hint = (
            "check the name, and that the access token may read it" if known else f"check the name; if private, {LOGIN}"
        )
        return f"{repo_id} does not exist on the Hub, or is private: {hint}"
    if status == 401:
        if known:
            return f"the Hub does not accept the access token: make a new one at {constants.ENDPOINT}/settings/tokens"
        return f"the Hub wants an access token for {repo_id}: {LOGIN}"
    if status == 403:
        return (
            f"the access token may not write to {repo_id}: use a token with write permission of a user who may, "
            "or push below your own name"
        )
    return f"the Hub answered {status} for {repo_id}: {error.server_message or 'no reason given'}"
