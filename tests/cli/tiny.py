"""Options of a training run of four steps, that lasts a moment."""

from __future__ import annotations

__all__ = ["TINY"]

TINY = [
    "--codebook-size=16",
    "--code-dim=4",
    "--hidden-size=8",
    "--batch-size=4",
    "--steps=4",
    "--set=network.residual_size=4",
    "--set=network.num_residual_blocks=1",
    "--set=warmup_steps=1",
    "--set=log_every=2",
    "--set=checkpoint_every=2",
]
