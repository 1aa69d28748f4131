"""How many images may be computed at once, wherever that only affects speed and memory."""

from __future__ import annotations

from vqtok.errors import ConfigurationError

__all__ = ["check_batch_size"]

MOST = 2**20  # images: more than any memory holds, and a number that torch and metrics.json can count with


def check_batch_size(batch_size: int) -> None:
    """Refuse a batch size that no computer has the memory for, or none at all.

    Raises:
        ConfigurationError: it is not from 1 to 1,048,576.
    """
    if not 1 <= batch_size <= MOST:
        raise ConfigurationError(f"batch_size must be from 1 to {MOST:,}, got {batch_size}")
