"""What to try when too few codes are in use: settings that measured as good or better, and nothing else.

A setting that is worse than its default goes back to it (restart_threshold, init, temperature). Beyond the defaults a
lower projection_dim compares fewer numbers, and entropy_weight is the only pull of lfq and bsq towards even use. A
lower learning_rate moves latents so slowly that codes follow, and fewer codes have more latents each. Of many codes
simvq leaves none behind, and the levels of fsq are not learned. What compares on the sphere or rewards even use of a
learned codebook measured worse. All of it: `python scripts/compare_quantizers.py options`, `large`, `lfq`, `ibq`,
`gumbel`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vqtok.errors import ConfigurationError
from vqtok.quantizers import QUANTIZERS
from vqtok.training.config import TokenizerTrainingConfig
from vqtok.training.resolution import resolve_config
from vqtok.training.start import changes

__all__ = ["remedies"]

LARGE = 4096  # codes, from which on a change of method is worth it
LEVELS = {  # of fsq, for at most so many codes: Mentzer et al. 2023, appendix A.4.1
    2**16: [8, 8, 8, 5, 5, 5],
    2**14: [8, 8, 8, 6, 5],
    2**12: [7, 5, 5, 5, 5],
}


def remedies(config: TokenizerTrainingConfig) -> list[str]:
    """Assignments as `--set` takes them, each of which a run with this configuration could be started with.

    Codes that are frozen are used as the images will have it.
    """
    if "quantizer" in config.freeze:
        return []
    return [assignment for assignment in candidates(config) if accepted(config, assignment)]


def candidates(config: TokenizerTrainingConfig) -> Iterator[str]:
    """What the method has a setting for and what is not set so already."""
    quantizer = config.quantizer.model_dump()
    each = quantizer.get("each")
    prefix, options = ("quantizer.each", each) if isinstance(each, Mapping) else ("quantizer", quantizer)
    for name, better in improvements(options):
        yield f"{prefix}.{name}={better}"
    yield f"learning_rate={config.learning_rate / 2:g}"
    size = options.get("codebook_size", 0)
    if size >= 4:
        yield f"{prefix}.codebook_size={size // 2}"
    if size >= LARGE and "init" in options:  # vectors that are learned one by one
        if options["type"] != "simvq":
            yield f"{prefix}={{type: simvq, codebook_size: {size}, code_dim: {options['code_dim']}}}"
        yield f"{prefix}={{type: fsq, levels: {next(levels for most, levels in LEVELS.items() if size >= most)}}}"


def improvements(options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Options of a quantizer whose value leaves room, with a better one."""
    method = options["type"]
    best = {name: field.default for name, field in QUANTIZERS[method].Options.model_fields.items()}
    if options.get("restart_threshold", 1) < best.get("restart_threshold", 0):
        yield "restart_threshold", best["restart_threshold"]
    if options.get("init") == "normal":
        yield "init", best["init"]
    if "projection_dim" in options and options["projection_dim"] == 0 and options["code_dim"] > 8:
        yield "projection_dim", 8
    if method in ("bsq", "lfq"):
        yield "entropy_weight", f"{max(best['entropy_weight'], 2 * options['entropy_weight']):g}"
    measured = method == "lfq" or (method == "ibq" and options["metric"] == best["metric"])
    if measured and options["temperature"] > best["temperature"]:
        yield "temperature", f"{best['temperature']:g}"


def accepted(config: TokenizerTrainingConfig, assignment: str) -> bool:
    """Whether the configuration would take the assignment beside everything else that is set."""
    try:
        changed = resolve_config(TokenizerTrainingConfig, base=config.model_dump(), assignments=[assignment])
    except ConfigurationError:
        return False
    return config.init_from is None or next(changes(config, changed), None) is None
