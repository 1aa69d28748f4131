"""Images to grids of discrete codes and back, the Hugging Face way.

    tokenizer = vqtok.VQTokenizer.from_pretrained("org/vq-mnist")
    codes = tokenizer.tokenize(images)
    images = tokenizer.detokenize(codes)

Importing the package registers its models with AutoConfig, AutoModel and AutoImageProcessor. What reads and writes
codes is imported when it is first named, so that who only wants a model does not wait for `datasets` (0.4 s of 5 s).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vqtok.baselines import load_baseline
from vqtok.errors import VqtokError
from vqtok.priors import complete, generate, load_prior
from vqtok.tokenizer import VQImageProcessor, VQTokenizer, VQTokenizerConfig

if TYPE_CHECKING:
    from vqtok.codes import bind_codes, load_codes, tokenize_dataset

__all__ = [
    "VQImageProcessor",
    "VQTokenizer",
    "VQTokenizerConfig",
    "VqtokError",
    "bind_codes",
    "complete",
    "generate",
    "load_baseline",
    "load_codes",
    "load_prior",
    "tokenize_dataset",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in ("bind_codes", "load_codes", "tokenize_dataset"):
        raise AttributeError(f"module 'vqtok' has no attribute {name!r}")
    from vqtok import codes

    return getattr(codes, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
