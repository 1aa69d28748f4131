"""Published checkpoints of other programs as tokenizers of this one."""

from __future__ import annotations

from vqtok.convert.checkpoint import read_checkpoint, tensors_of
from vqtok.convert.pickled import Opaque

__all__ = ["Opaque", "read_checkpoint", "tensors_of"]
