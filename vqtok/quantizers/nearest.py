"""The nearest code, with a gradient that goes past the choice: what `vq`, `ema` and `simvq` have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from vqtok.quantizers.base import GRADIENTS, at_least_zero, mean_squared_error, one_of
from vqtok.quantizers.codebook import Chosen, CodebookQuantizer
from vqtok.quantizers.lookup import gather_codes, nearest_codes

__all__ = ["NearestCodeQuantizer"]


class NearestCodeQuantizer(CodebookQuantizer):
    """Each row takes the code nearest to it.

    Args:
        beta: weight of the commitment of the encoder to its codes, ||z - sg[e]||^2; 0.25 as in van den Oord et al.
            2017.
        gradient: "straight-through" copies the gradient from the codes to the latents, "rotation" turns it along
            (Fifty et al. 2024).
        shared: see CodebookQuantizer.
    """

    learned_by_gradient: ClassVar[bool] = False
    """Whether the codebook follows its latents by a term of the loss, ||sg[z] - e||^2."""

    def __init__(self, *, beta: float = 0.25, gradient: str = "straight-through", **shared: Any) -> None:
        super().__init__(**shared)
        at_least_zero(beta=beta)
        one_of("gradient", gradient, sorted(GRADIENTS))
        self.beta = beta
        self.gradient = gradient

    def choose(self, rows: Tensor) -> Chosen:
        table = self.table()
        codes = nearest_codes(rows.detach(), table.detach())
        vectors = gather_codes(table, codes)
        return Chosen(
            vectors=GRADIENTS[self.gradient](rows, vectors) if rows.requires_grad else vectors.detach(),
            codes=codes,
            losses=self.distances(rows, vectors) | dict(self.entropy_losses(rows, table)),
        )

    def distances(self, rows: Tensor, vectors: Tensor) -> dict[str, tuple[float, Tensor]]:
        """The terms that hold rows and their codes (N, d) together."""
        terms = {"codebook": (1.0, mean_squared_error(vectors, rows.detach()))} if self.learned_by_gradient else {}
        return terms | {"commitment": (self.beta, mean_squared_error(rows, vectors.detach()))}
