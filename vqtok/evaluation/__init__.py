"""How good a tokenizer is: reconstruction error and code use on named pictures, written as one metrics.json."""

from __future__ import annotations

from vqtok.evaluation.codebook import CodeUse, count_codes
from vqtok.evaluation.reconstruction import evaluate_tokenizer, write_metrics

__all__ = ["CodeUse", "count_codes", "evaluate_tokenizer", "write_metrics"]
