"""Published checkpoints of other programs as tokenizers of this one."""

from __future__ import annotations

from vqtok.convert.checkpoint import read_checkpoint, tensors_of
from vqtok.convert.driver import Converted, convert
from vqtok.convert.pickled import Opaque
from vqtok.convert.registry import FAMILIES

__all__ = ["FAMILIES", "Converted", "Opaque", "convert", "read_checkpoint", "tensors_of"]
