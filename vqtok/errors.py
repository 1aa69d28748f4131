"""What a user can get wrong. The command line prints any of these as one line and exits with status 2, or as it says.

VqtokError
├── ConfigurationError   an option, a key or a combination that makes no sense
├── DataError            images or codes that are missing, empty or unreadable
│   └── BadImagesError   more images that cannot be read than the user allows: exit status 3
├── CheckpointError      weights or a checkpoint that are missing, misshapen or not resumable
├── MismatchError        codes, priors and tokenizers that do not belong together
├── TrainingError        a run that cannot go on, such as a loss that is not finite
└── HubError             a repository that cannot be read or written
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

__all__ = [
    "BadImagesError",
    "CheckpointError",
    "ConfigurationError",
    "DataError",
    "HubError",
    "MismatchError",
    "TrainingError",
    "VqtokError",
    "did_you_mean",
    "one_line",
    "shortened",
]

SHOWN = 100  # characters of a value in an error


def _beginning() -> reprlib.Repr:
    """Writes no more than a few times `SHOWN` characters of a value that may be huge."""
    short = reprlib.Repr()
    short.maxlevel = 3
    short.maxlist = short.maxtuple = short.maxset = short.maxfrozenset = short.maxdict = SHOWN // 2
    short.maxstring = short.maxlong = short.maxother = 4 * SHOWN
    return short


_BEGINNING = _beginning()


class VqtokError(Exception):
    """Base of every error that a user can mend."""


class ConfigurationError(VqtokError):
    """An option, a key or a combination that makes no sense."""


class DataError(VqtokError):
    """Images or codes that are missing, empty or unreadable."""


class BadImagesError(DataError):
    """More images that cannot be read than the user allows."""


class CheckpointError(VqtokError):
    """Weights or a checkpoint that are missing, misshapen or not resumable."""


class MismatchError(VqtokError):
    """Codes, priors and tokenizers that do not belong together."""


class TrainingError(VqtokError):
    """A run that cannot go on."""


class HubError(VqtokError):
    """A repository that cannot be read or written."""


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Say which allowed name is closest to a misspelt one: `" Did you mean 'x'?"`, or nothing where none is close."""
    matches = difflib.get_close_matches(name, list(allowed), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def shortened(value: object) -> str:
    """A value as Python writes it; of a long one the beginning."""
    text = _BEGINNING.repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
