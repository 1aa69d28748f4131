"""To the Hub and back: push a model folder with its card in one commit, fetch one as settings and safetensors only."""

from __future__ import annotations

from vqtok.hub.card import prior_card, tokenizer_card, write_card
from vqtok.hub.description import describe_prior, describe_tokenizer, grid_text
from vqtok.hub.fetch import fetch
from vqtok.hub.folder import open_folder, read_object
from vqtok.hub.push import check_can_push, push, push_model
from vqtok.hub.quiet import quiet_transformers
from vqtok.hub.run_metadata import newest_sample, step_of

__all__ = [
    "check_can_push",
    "describe_prior",
    "describe_tokenizer",
    "fetch",
    "grid_text",
    "newest_sample",
    "open_folder",
    "prior_card",
    "push",
    "push_model",
    "quiet_transformers",
    "read_object",
    "step_of",
    "tokenizer_card",
    "write_card",
]
