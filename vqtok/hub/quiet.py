"""Keep transformers from talking while it loads or saves a model whose caller says what matters."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils.logging import set_tqdm_hook

__all__ = ["quiet_transformers"]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep back the bar over a few tensors, and the table of those that do not fit, which our errors say shorter."""
    logger = logging.getLogger("transformers.modeling_utils")
    before = set_tqdm_hook(lambda bar, args, kwargs: bar(*args, **(kwargs | {"disable": True})))
    logger.addFilter(is_no_report)
    try:
        yield
    finally:
        logger.removeFilter(is_no_report)
        set_tqdm_hook(before)


def is_no_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()
