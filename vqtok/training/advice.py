"""What to try when a codebook collapses: settings of the method at hand that are known to keep its codes in use.

Codes die because no latent comes near them, so that nothing moves them. What helps, most helpful first: put dead codes
on latents (Dhariwal et al. 2020, appendix A) and start there, compare in few dimensions and on the sphere (Yu et al.
2022, arXiv:2110.04627, section 3.2), reward even use, let the latents move so slowly that the codes can follow, have
fewer codes, or take a method that moves all codes at once or has none to move.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vqtok.errors import ConfigurationError
from vqtok.quantizers import QUANTIZERS
from vqtok.training.config import TokenizerTrainingConfig
from vqtok.training.resolution import resolve_config

__all__ = ["remedies"]

LARGE = 4096  # codes, from which on methods that move all codes at once are worth a change of method
FOR_LARGE = ("simvq", "ibq", "fsq")


def remedies(config: TokenizerTrainingConfig) -> list[str]:
    """Assignments as `--set` takes them, each of which a run with this configuration could be started with."""
    return [assignment for assignment in candidates(config) if accepted(config, assignment)]


def candidates(config: TokenizerTrainingConfig) -> Iterator[str]:
    """What the method has a setting for and what is not set so already."""
    quantizer = config.quantizer.model_dump()
    each = quantizer.get("each")
    prefix, options = ("quantizer.each", each) if isinstance(each, Mapping) else ("quantizer", quantizer)
    for name, value, better in improvements(options):
        if options.get(name) == value:
            yield f"{prefix}.{name}={better}"
    yield f"learning_rate={config.learning_rate / 2:g}"
    yield f"warmup_steps={(config.warmup_steps or 250) * 2}"
    size = options.get("codebook_size", 0)
    if size >= 4:
        yield f"{prefix}.codebook_size={size // 2}"
    if size >= LARGE and options["type"] not in FOR_LARGE:
        yield from (f"{prefix}.type={method}" for method in FOR_LARGE if method in QUANTIZERS)


def improvements(options: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Name of an option, the value that leaves room, and a better one."""
    yield "restart_threshold", 0, 0.05
    yield "init", "normal", "data"
    if options.get("code_dim", 0) > 8:
        yield "projection_dim", 0, 8
    yield "metric", "euclidean", "cosine"
    for weight in ("entropy_weight", "kl_weight"):
        now = options.get(weight, 0)
        yield weight, now, f"{4 * now or 0.1:g}"


def accepted(config: TokenizerTrainingConfig, assignment: str) -> bool:
    """Whether the configuration would take the assignment beside everything else that is set."""
    try:
        resolve_config(TokenizerTrainingConfig, base=config.model_dump(), assignments=[assignment])
    except ConfigurationError:
        return False
    return True
