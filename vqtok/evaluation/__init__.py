"""How good a tokenizer is on named images: reconstruction error, bits per dimension, codes in use, codebook health."""

from __future__ import annotations

from vqtok.evaluation.codebook import code_use, count_codes
from vqtok.evaluation.health import CodebookHealth, measure_health
from vqtok.evaluation.likelihood import BitsPerDim
from vqtok.evaluation.reconstruction import check_metrics_file, evaluate_tokenizer, write_metrics

__all__ = [
    "BitsPerDim",
    "CodebookHealth",
    "check_metrics_file",
    "code_use",
    "count_codes",
    "evaluate_tokenizer",
    "measure_health",
    "write_metrics",
]
