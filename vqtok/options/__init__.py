"""How options are declared, checked and explained: once, for every kind.

The options of a method are one pydantic model in the method's file: name, type, default, bounds and a sentence each.

    class EMAOptions(QuantizerOptions):
        type: Literal["ema"] = "ema"
        decay: float = Field(0.99, ge=0, lt=1, description="decay of the moving averages")

Saved configurations, `--set`, error messages, help texts and the tables of the documentation all come from such a
model. Where a section may be of several types, as `quantizer` is, its field is annotated with `Types`.
"""

from __future__ import annotations

from vqtok.options.annotations import Allowed, DefaultText, TrainingOnly, Types, types_of
from vqtok.options.base import Options
from vqtok.options.settings import Setting, setting, settings_of

__all__ = [
    "Allowed",
    "DefaultText",
    "Options",
    "Setting",
    "TrainingOnly",
    "Types",
    "setting",
    "settings_of",
    "types_of",
]
