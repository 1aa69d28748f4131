"""What the name of a model or of a dataset can stand for beside a folder."""

from __future__ import annotations

import re

__all__ = ["KNOWN", "is_hub_id"]

KNOWN = {"cifar10": "uoft-cs/cifar10", "mnist": "ylecun/mnist", "mnist-mini": "mnist-mini"}
"""Datasets with a short name, and the Hub id of each; mnist-mini is in the package."""


def is_hub_id(name: str) -> bool:
    """Whether a name can be that of a repository on the Hub: owner/name."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None
