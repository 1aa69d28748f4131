"""The tokenizer as the Hugging Face libraries know it: configuration, model, image processor and their Auto classes."""

from __future__ import annotations

from transformers import AutoConfig, AutoImageProcessor, AutoModel

from vqtok.tokenizer.configuration import VQTokenizerConfig
from vqtok.tokenizer.image_processing import VQImageProcessor
from vqtok.tokenizer.modeling import VQTokenizer, VQTokenizerOutput

__all__ = ["VQImageProcessor", "VQTokenizer", "VQTokenizerConfig", "VQTokenizerOutput"]

AutoConfig.register("vqtok", VQTokenizerConfig)
AutoModel.register(VQTokenizerConfig, VQTokenizer)
AutoImageProcessor.register(VQTokenizerConfig, image_processor_classes={"pil": VQImageProcessor})
