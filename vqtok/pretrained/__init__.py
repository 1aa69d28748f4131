"""What all models of images have as models of Hugging Face: a strict configuration, and loading that runs nothing.

A tokenizer and the baselines are such models; a prior reads codes and has its own.
"""

from __future__ import annotations

from vqtok.pretrained.configuration import (
    COVER,
    ImageModelConfig,
    ImageModelOptions,
    ImageSize,
    check_divisible,
)
from vqtok.pretrained.modeling import ImageModel

__all__ = ["COVER", "ImageModel", "ImageModelConfig", "ImageModelOptions", "ImageSize", "check_divisible"]
