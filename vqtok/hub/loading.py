"""What goes wrong while a model is built from its files, said as one line about the files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from vqtok.errors import CheckpointError
from vqtok.hub.quiet import quiet_transformers

__all__ = ["loading"]

# What torch, transformers and Python raise over sizes, types and names that make no model.
FAILURES = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    TypeError,
    ValueError,
)


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Build a model inside the block, quietly; whatever fails there is a CheckpointError about `what`."""
    try:
        with quiet_transformers():
            yield
    except FAILURES as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        # a strict dataclass says first which field it is about, and then what is wrong with it
        reason = ": ".join(line.rstrip(":") for line in lines) if isinstance(error, StrictDataclassError) else lines[0]
        raise CheckpointError(f"cannot load {what}: {reason}") from error
