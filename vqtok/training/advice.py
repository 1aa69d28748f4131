"""What to try when too few codes are in use: settings that measured as good or better, and nothing else.

All of it was measured with AdamW, before moving averages began with a smaller decay.

restart_threshold, from 0   ema and vq, CIFAR-10, 1,000 steps, MSE over variance and codes in use of 512: 0.0874 and
                            121 without restarts, 0.0648 with 0.05; gumbel, 400 steps: 0.1268 and 499 with 0.2,
                            0.1417 and 433 with 0.05. Above that nothing was measured.
init=data                   the start that the 0.0648 has; 0.0653 from k-means. Codes far from all latents never move.
projection_dim=8            0.0660, as good within what runs differ by, with fewer numbers to compare. What compares
                            on the sphere (0.0833) or rewards even use (0.1173) is not recommended.
temperature                 ibq, 400 steps: 66 codes with 0.02, 38 with 0.1; lfq: 512 with 1, 22 with 8.
entropy_weight              lfq and bsq, whose only pull towards even use it is: lfq, 512 codes with 0.1, 45 with a
                            tenth of it. That more than 0.1 helps rests on what the term says, not on a run.
learning_rate               latents that move slowly are followed.
codebook_size               fewer codes have more latents each.
simvq, fsq                  of 16,384 codes simvq used 15,757; levels of fsq are not learned: none is left behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vqtok.errors import ConfigurationError
from vqtok.training.config import TokenizerTrainingConfig
from vqtok.training.resolution import resolve_config

__all__ = ["remedies"]

LARGE = 4096  # codes, from which on a change of method is worth it
LEVELS = {  # of fsq, for at most so many codes: Mentzer et al. 2023, appendix A.4.1
    2**16: [8, 8, 8, 5, 5, 5],
    2**14: [8, 8, 8, 6, 5],
    2**12: [7, 5, 5, 5, 5],
}


def remedies(config: TokenizerTrainingConfig) -> list[str]:
    """Assignments as `--set` takes them, each of which a run with this configuration could be started with."""
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
    if method == "gumbel" and options["restart_threshold"] < 0.2:
        yield "restart_threshold", 0.2
    elif options.get("restart_threshold") == 0:
        yield "restart_threshold", 0.05
    if options.get("init") == "normal":
        yield "init", "data"
    if "projection_dim" in options and options["projection_dim"] == 0 and options["code_dim"] > 8:
        yield "projection_dim", 8
    if method in ("bsq", "lfq"):
        yield "entropy_weight", f"{max(0.1, 2 * options['entropy_weight']):g}"
    if method == "lfq" and options["temperature"] > 1:
        yield "temperature", 1
    if method == "ibq" and options["metric"] == "cosine" and options["temperature"] > 0.02:
        yield "temperature", 0.02


def accepted(config: TokenizerTrainingConfig, assignment: str) -> bool:
    """Whether the configuration would take the assignment beside everything else that is set."""
    try:
        resolve_config(TokenizerTrainingConfig, base=config.model_dump(), assignments=[assignment])
    except ConfigurationError:
        return False
    return True
