"""Every option of the package is described, has a default that is allowed, and is declared once."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import vqtok
from vqtok.baselines import BASELINES, BaselineOptions
from vqtok.codes import TokenizeOptions
from vqtok.errors import ConfigurationError
from vqtok.networks import NETWORKS
from vqtok.options import Options, setting, settings_of, types_of
from vqtok.priors import ARCHITECTURES
from vqtok.quantizers import QUANTIZERS
from vqtok.tokenizer.configuration import TokenizerOptions
from vqtok.training.baseline_config import BaselineTrainingConfig
from vqtok.training.config import LoopConfig, TokenizerTrainingConfig
from vqtok.training.prior_config import PriorTrainingConfig

ROOT = Path(__file__).parents[1]
CONFIGURATIONS: list[type[Options]] = [
    BaselineOptions,
    BaselineTrainingConfig,
    PriorTrainingConfig,
    TokenizeOptions,
    TokenizerOptions,
    TokenizerTrainingConfig,
]
METHODS: list[type[Options]] = [
    *(method.Options for method in QUANTIZERS.values()),
    *(network.options for network in NETWORKS.values()),
    *(architecture.options for architecture in ARCHITECTURES.values()),
    *(config.method for config, _ in BASELINES.values()),
]


def descendants(kind: type[Options]) -> Iterator[type[Options]]:
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)


def declared() -> list[type[Options]]:
    """Every description of options in the package, whatever it is in."""
    for module in pkgutil.walk_packages(vqtok.__path__, "vqtok."):
        if module.name != "vqtok.quantizers.lookup_triton":  # needs triton, and has none
            importlib.import_module(module.name)
    return [kind for kind in dict.fromkeys(descendants(Options)) if kind.__module__.startswith("vqtok.")]


def test_every_option_is_described() -> None:
    kinds = declared()
    assert {*METHODS, *CONFIGURATIONS, LoopConfig} <= set(kinds)
    for kind in kinds:
        for name, field in kind.model_fields.items():
            if name != "type":
                text = field.description or ""
                assert len(text) > 5 and text == text.strip() and not text.endswith("."), f"{kind.__name__}.{name}"


@pytest.mark.parametrize("kind", METHODS + CONFIGURATIONS, ids=lambda kind: kind.__name__)
def test_every_default_is_allowed_and_every_allowed_is_said(kind: type[Options]) -> None:
    required = {item.name: "a" for item in settings_of(kind) if item.required}
    whole = kind(**required)
    for item in settings_of(kind):
        section = types_of(kind.model_fields[item.name])
        value = getattr(whole, item.name)
        assert item.allowed and item.description and isinstance(item.type, type)
        if item.required:
            assert item.default is None
            continue
        assert item.default in ((value.type if section else value), None)  # null may be filled in
        assert item.default is None or type(item.default) is item.type
        assert setting(kind, item.name) == item
    assert kind(**whole.model_dump()) == whole  # defaults are within their own bounds, which are not checked else


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.__name__)
def test_the_type_is_the_name_in_the_registry(kind: type[Options]) -> None:
    names = {method.Options: name for name, method in QUANTIZERS.items()}
    names |= {network.options: name for name, network in NETWORKS.items()}
    names |= {architecture.options: name for name, architecture in ARCHITECTURES.items()}
    names |= {config.method: name for name, (config, _) in BASELINES.items()}
    assert kind.model_fields["type"].default == names[kind]
    with pytest.raises(ConfigurationError, match=f"^{kind.section}.type must be {names[kind]}, got 'other'$"):
        kind(type="other")


def test_every_number_that_is_not_one_is_refused() -> None:
    tried = 0
    for kind in METHODS:
        for item in settings_of(kind):
            if item.type is float:
                for wrong in (float("nan"), float("inf"), -float("inf"), True, "1", None, [1.0], 10**400):
                    with pytest.raises(ConfigurationError, match=f"^{kind.section}.{item.name} must be "):
                        kind(**{item.name: wrong})
                    tried += 1
            if item.type is int:
                for wrong in (1.0, True, "1", *([] if "null" in item.allowed else [None]), [1], -(10**30)):
                    with pytest.raises(ConfigurationError, match=f"^{kind.section}.{item.name} must be "):
                        kind(**{item.name: wrong})
                    tried += 1
    assert tried > 300


def test_nothing_recovers_options_from_signatures() -> None:
    for path in (ROOT / "vqtok").rglob("*.py"):  # the command line does the opposite: signatures from descriptions
        for node in ast.walk(ast.parse(path.read_text())):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert "inspect" not in imported, path
            assert not (isinstance(node, ast.Attribute) and node.attr in ("signature", "__kwdefaults__")), path
