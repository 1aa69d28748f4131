"""How good a tokenizer is on named images: reconstruction error and use of codes, and the health of its codebook."""

from __future__ import annotations

from vqtok.evaluation.codebook import code_use, count_codes
from vqtok.evaluation.health import CodebookHealth, measure_health
from vqtok.evaluation.reconstruction import check_metrics_file, evaluate_tokenizer, write_metrics

__all__ = [
    "CodebookHealth",
    "check_metrics_file",
    "code_use",
    "count_codes",
    "evaluate_tokenizer",
    "measure_health",
    "write_metrics",
]
