"""Whether a codebook is healthy on named images, and if not, what is wrong and what to try."""

from __future__ import annotations

from dataclasses import dataclass

from vqtok.evaluation import CodebookHealth
from vqtok.quantizers import CodeUse, even_use, too_few_in_use
from vqtok.text import counted
from vqtok.training import TokenizerTrainingConfig
from vqtok.training.advice import remedies

__all__ = ["Verdict", "judge"]

CROWDED = 0.5  # of all positions, more than which the 1% most used codes should not take
FEW_CODES = 100  # below which 1% is no whole code
DEFAULT_SHARE: float = TokenizerTrainingConfig.model_fields["usage_warning"].default
COINCIDE = 1e-3  # of the mean distance of two codes, under which two are one


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was found.

    Attributes:
        wrong: a line for each fault; empty for a healthy codebook.
        remedies: settings to train with instead, most helpful first, as `vqtok train --set` takes them.
    """

    wrong: tuple[str, ...]
    remedies: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        return not self.wrong


def judge(health: CodebookHealth, config: TokenizerTrainingConfig) -> Verdict:
    """Compare what was measured with what training warns of.

    Too few codes are in use where there are less than `usage_warning` times what even use of all codes would show over
    as many images, as in training.

    Args:
        health: on images that say something about others, so held-out ones.
        config: of the run; its remedies and its `usage_warning` are taken.
    """
    wrong = [*too_few(health, config.usage_warning), *crowded(health), *coinciding(health)]
    return Verdict(wrong=tuple(wrong), remedies=tuple(remedies(config)) if wrong else ())


def too_few(health: CodebookHealth, share: float) -> list[str]:
    use = health.use
    if not too_few_in_use(use, share or DEFAULT_SHARE):
        return []
    return [f"{use}{even_use(use)}"]


def crowded(health: CodebookHealth) -> list[str]:
    share = health.numbers().get("share_of_top_percent", 0.0)
    if health.counts.shape[1] < FEW_CODES or share <= CROWDED:
        return []
    return [f"the 1% most used codes take {share:.0%} of all positions"]


def coinciding(health: CodebookHealth) -> list[str]:
    """Codes in use that another lies on."""
    if not isinstance(health.use, CodeUse):
        return []
    count = 0
    for codebook, found in enumerate(health.distances):
        used = health.counts[codebook][found.codes] > 0
        count += int((used & (found.nearest <= COINCIDE * found.pairs.mean())).sum())
    lie = "lies" if count == 1 else "lie"
    return [f"{counted(count, 'code')} in use {lie} on top of another code"] if count else []
