"""Every method of the registry in small: fixed options, and hypothesis strategies over all that a user may combine."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from vqtok.quantizers import QUANTIZERS, Quantizer, build_quantizer

Options = dict[str, Any]

METHODS = sorted(QUANTIZERS)

SMALL: dict[str, Options] = {
    "bsq": {"codebook_size": 16},
    "ema": {"codebook_size": 16, "code_dim": 3},
    "fsq": {"levels": [3, 4, 2]},
    "gumbel": {"codebook_size": 16, "code_dim": 3},
    "ibq": {"codebook_size": 16, "code_dim": 3},
    "lfq": {"codebook_size": 16},
    "product": {"num_codebooks": 2, "each": {"type": "vq", "codebook_size": 16, "code_dim": 3}},
    "residual": {"num_codebooks": 3, "each": {"type": "ema", "codebook_size": 16, "code_dim": 3}},
    "simvq": {"codebook_size": 16, "code_dim": 3},
    "vq": {"codebook_size": 16, "code_dim": 3},
}
"""One of each method."""

VARIANTS: list[Options] = [
    *({"type": method, **options} for method, options in SMALL.items()),
    {"type": "gumbel", "logits": "linear", "init": "normal", "restart_threshold": 0.0, **SMALL["gumbel"]},
    {"type": "ema", "metric": "cosine", "gradient": "rotation", "projection_dim": 2, "init": "kmeans", **SMALL["ema"]},
    {"type": "vq", "entropy_weight": 0.1, "gradient": "rotation", **SMALL["vq"]},
    {"type": "residual", "shared": True, "stage_dropout": 0.5, "gradient": "rotation", **SMALL["residual"]},
    {"type": "residual", "each": {"type": "simvq", **SMALL["simvq"]}},
    {"type": "product", "num_codebooks": 3, "each": {"type": "fsq", "levels": [3, 2]}},
]
"""One of each method, and what differs from it most."""


def defaults(method: str) -> Options:
    """The options of a method with their defaults, without its name."""
    return QUANTIZERS[method].Options().model_dump(exclude={"type"})


def small(method: str, **more: Any) -> Quantizer:
    """The small one of a method."""
    return build_quantizer({"type": method} | SMALL[method] | more)


def rows_of(latents: torch.Tensor) -> np.ndarray:
    """(B, D, h, w) -> float64 (N, D)."""
    return latents.detach().double().permute(0, 2, 3, 1).reshape(-1, latents.shape[1]).numpy()


def fixed_code_options(method: str) -> st.SearchStrategy[Options]:
    """Options of methods without a codebook to learn."""
    if method == "fsq":
        return st.fixed_dictionaries({"levels": st.lists(st.integers(2, 9), min_size=1, max_size=4)})
    weights = {"entropy_weight": st.sampled_from([0.0, 0.1]), "beta": st.sampled_from([0.0, 0.25])}
    return st.fixed_dictionaries({"codebook_size": st.integers(1, 8).map(lambda bits: 2**bits), **weights})


@st.composite
def codebook_options(draw: st.DrawFn, method: str, plain: bool = False) -> Options:
    """Options of methods with one learned codebook; a plain one can be a stage of a residual quantizer."""
    dim = draw(st.integers(1, 6))
    options: Options = {
        "codebook_size": draw(st.integers(2, 40)),
        "code_dim": dim,
        "init": draw(st.sampled_from(["data", "kmeans", "normal"])),
        "entropy_weight": draw(st.sampled_from([0.0, 0.1])),
    }
    if method != "simvq":
        options["restart_threshold"] = draw(st.sampled_from([0.0, 0.5]))
        options["decay"] = draw(st.sampled_from([0.0, 0.5]))
    if not plain:
        options["projection_dim"] = draw(st.integers(0, dim))
        options["metric"] = draw(st.sampled_from(["cosine", "euclidean"]))
        if method in ("ema", "simvq", "vq"):
            options["gradient"] = draw(st.sampled_from(["rotation", "straight-through"]))
    if method == "gumbel" and draw(st.booleans()):
        options |= {"logits": "linear", "init": "normal", "restart_threshold": 0.0}
        options |= {"metric": "euclidean", "entropy_weight": 0.0}
    return options


@st.composite
def options_of(draw: st.DrawFn, method: str) -> Options:
    """Any options of a method that make sense together."""
    if method in ("bsq", "fsq", "lfq"):
        return {"type": method, **draw(fixed_code_options(method))}
    if method == "product":
        inner = draw(st.sampled_from([name for name in METHODS if name not in ("product", "residual")]))
        return {"type": method, "num_codebooks": draw(st.integers(2, 3)), "each": draw(options_of(inner))}
    if method == "residual":
        inner = draw(st.sampled_from(["ema", "simvq", "vq"]))
        return {
            "type": method,
            "num_codebooks": draw(st.integers(2, 4)),
            "each": {"type": inner, **draw(codebook_options(inner, plain=True))},
            "shared": draw(st.booleans()),
            "stage_dropout": draw(st.sampled_from([0.0, 0.5])),
            "gradient": draw(st.sampled_from(["rotation", "straight-through"])),
        }
    return {"type": method, **draw(codebook_options(method))}


def numbers_of(options: Options) -> tuple[int, int, int]:
    """K, Q and D that options ask for."""
    if "each" in options:
        size, _, dim = numbers_of(options["each"])
        number = options["num_codebooks"]
        return size, number, dim * number if options["type"] == "product" else dim
    if "levels" in options:
        return math.prod(options["levels"]), 1, len(options["levels"])
    return options["codebook_size"], 1, options.get("code_dim", int(math.log2(options["codebook_size"])))


def samples(options: Options) -> bool:
    """Whether a forward pass in training gives other vectors than those of its codes."""
    return bool(options.get("each", options)["type"] == "gumbel")


def drops_stages(options: Options) -> bool:
    """Whether a forward pass in training leaves out codes that `encode` gives."""
    return bool(options.get("stage_dropout", 0) > 0)
