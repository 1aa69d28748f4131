"""Images to grids of discrete codes and back, the Hugging Face way.

    tokenizer = vqtok.VQTokenizer.from_pretrained("org/vq-mnist")
    codes = tokenizer.tokenize(images)
    images = tokenizer.detokenize(codes)

Importing the package registers its models with AutoConfig, AutoModel and AutoImageProcessor; everything else is loaded
when it is first named.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

for _package in ("vqtok.tokenizer", "vqtok.priors"):
    import_module(_package)

__all__ = [
    "VQImageProcessor",
    "VQTokenizer",
    "VQTokenizerConfig",
    "VqtokError",
    "generate",
    "load_codes",
    "load_prior",
    "tokenize_dataset",
]

__version__ = "0.1.0"

_HOMES = {
    "VQImageProcessor": "vqtok.tokenizer",
    "VQTokenizer": "vqtok.tokenizer",
    "VQTokenizerConfig": "vqtok.tokenizer",
    "VqtokError": "vqtok.errors",
    "generate": "vqtok.priors",
    "load_codes": "vqtok.codes",
    "load_prior": "vqtok.priors",
    "tokenize_dataset": "vqtok.codes",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vqtok' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
