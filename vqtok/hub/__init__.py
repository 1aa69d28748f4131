"""To the Hub and back: push a model folder with its card in one commit, fetch one as settings and safetensors only."""

from __future__ import annotations

from vqtok.hub.card import card_of, shown
from vqtok.hub.description import describe_baseline, describe_prior, describe_tokenizer, grid_text, names_text
from vqtok.hub.errors import hub_errors
from vqtok.hub.fetch import fetch, find_model
from vqtok.hub.folder import BASELINES, PRIORS, Kind, ModelFolder, kind_of, open_folder
from vqtok.hub.loading import loading
from vqtok.hub.patience import be_patient
from vqtok.hub.provenance import Provenance, provenance_of, sharing_warning
from vqtok.hub.push import check_can_push, open_to_push, push, push_model
from vqtok.hub.quiet import quiet_transformers
from vqtok.hub.run_metadata import (
    HEALTH,
    IMAGES_RECORD,
    is_health,
    is_run,
    newest_sample,
    portable,
    read_images_record,
    read_metric_rows,
    read_metrics,
    run_of,
    step_of,
    training_usage,
)
from vqtok.hub.settings import DTYPES, check_settings, read_settings
from vqtok.hub.weights import check_finite, check_fit

__all__ = [
    "BASELINES",
    "DTYPES",
    "HEALTH",
    "IMAGES_RECORD",
    "PRIORS",
    "Kind",
    "ModelFolder",
    "Provenance",
    "be_patient",
    "card_of",
    "check_can_push",
    "check_finite",
    "check_fit",
    "check_settings",
    "describe_baseline",
    "describe_prior",
    "describe_tokenizer",
    "fetch",
    "find_model",
    "grid_text",
    "hub_errors",
    "is_health",
    "is_run",
    "kind_of",
    "loading",
    "names_text",
    "newest_sample",
    "open_folder",
    "open_to_push",
    "portable",
    "provenance_of",
    "push",
    "push_model",
    "quiet_transformers",
    "read_images_record",
    "read_metric_rows",
    "read_metrics",
    "read_settings",
    "run_of",
    "sharing_warning",
    "shown",
    "step_of",
    "training_usage",
]
