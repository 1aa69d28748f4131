"""A codebook of K learned vectors, and what every method that has one can do with it.

    latents (B, D, h, w) -rows, projection, unit length-> (N, d) -choose-> codes and vectors -projection-> (B, D, h, w)

A method says how codes are chosen (`choose`) and how the codebook learns (`learn`, or a loss). The rest is here: a
lower dimension to compare in and cosine codes (both Yu et al. 2021, arXiv:2110.04627, section 3.2), where the codes
start, and an entropy term over soft assignments (Yu et al. 2023, arXiv:2310.05737, equation 5).

The defaults are what measured best or as good: test MSE over variance with one option changed, 512 codes of dimension
64, 1,000 steps of `vqtok train` at batch 32 with 200 of warm-up, CIFAR-10 (hidden_size 128) and MNIST (64), first 2,500
test images, one run each:

                              ema, CIFAR-10     ema, MNIST        vq, CIFAR-10      vq, MNIST
    defaults                  0.0648            0.0443            0.0682            0.0546
    start=kmeans              0.0653            0.0435            0.0684
    projection_dim=8          0.0660
    metric=cosine             0.0833            0.0595            0.0862
    gradient=rotation         0.0896            0.0699            0.0768
    restart_threshold=0       0.0874, 121 codes 0.0492, 263 codes 0.0837, 221 codes
    entropy_weight=0.1        0.1173
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from vqtok.errors import ConfigurationError
from vqtok.quantizers.base import Quantizer, QuantizerOutput, at_least_zero, entropy, from_rows, one_of, to_rows
from vqtok.quantizers.distributed import count_rows, mean_over_processes, pick_rows, random_numbers
from vqtok.quantizers.kmeans import kmeans
from vqtok.quantizers.lookup import gather_codes, nearest_codes

__all__ = ["Chosen", "CodebookQuantizer"]

STARTS = ("kmeans", "latents", "normal")

# Soft assignments that the entropy term looks at in a batch: 256 MiB of float32. Evenly spaced rows beyond.
ASSIGNMENTS = 2**26


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What a method makes of the rows of a batch.

    Attributes:
        vectors: (N, d), with the gradient to the rows.
        codes: int64 (N,).
        losses: by name, the weight of a term and the term, a scalar. A weight of 0 leaves it a metric.
    """

    vectors: Tensor
    codes: Tensor
    losses: dict[str, tuple[float, Tensor]]

    @property
    def loss(self) -> Tensor:
        """The weighted sum of the terms."""
        return sum((weight * term for weight, term in self.losses.values() if weight), self.vectors.new_zeros(()))

    @property
    def metrics(self) -> dict[str, Tensor]:
        """Every term before its weight, detached."""
        return {name: term.detach() for name, (_, term) in self.losses.items()}


class CodebookQuantizer(Quantizer):
    """The part that methods with one learned codebook share; `codebook` is float32 (K, d).

    Args:
        codebook_size: K, number of codes, at least 2.
        code_dim: D, dimension of the latents.
        projection_dim: d, dimension of the codes, reached from D and left again by learned linear maps; 0 compares in
            D dimensions without any.
        metric: "euclidean", or "cosine": latents and codes are brought to unit length before they are compared, and
            the decoder gets codes of unit length.
        start: "latents" puts the codes on latents of the first training batch, "kmeans" on centres of k-means on all
            of them, "normal" on a normal distribution with standard deviation 1 / sqrt(d).
        entropy_weight: weight of E[H(p)] - H(E[p]) in nats, where p = softmax(-||z - e||^2 / temperature) over the
            codes: each latent sure of its code, all codes in use alike. 0 leaves the term out.
        entropy_temperature: of those soft assignments.

    Shapes: latents (B, D, h, w); codes (B, h, w) in [0, K).
    """

    allowed_metrics: ClassVar[tuple[str, ...]] = ("cosine", "euclidean")
    codebook: Tensor
    started: Tensor
    training_state: tuple[str, ...] = ("started",)

    def __init__(
        self,
        *,
        codebook_size: int = 512,
        code_dim: int = 64,
        projection_dim: int = 0,
        metric: str = "euclidean",
        start: str = "latents",
        entropy_weight: float = 0.0,
        entropy_temperature: float = 1.0,
    ) -> None:
        super().__init__()
        if codebook_size < 2:
            raise ConfigurationError(f"quantizer.codebook_size must be at least 2, got {codebook_size}")
        if code_dim < 1:
            raise ConfigurationError(f"quantizer.code_dim must be at least 1, got {code_dim}")
        if not 0 <= projection_dim <= code_dim:
            raise ConfigurationError(
                f"quantizer.projection_dim must be between 1 and quantizer.code_dim {code_dim}, or 0 for none, "
                f"got {projection_dim}"
            )
        one_of("metric", metric, self.allowed_metrics)
        one_of("start", start, STARTS)
        at_least_zero(entropy_weight=entropy_weight)
        if not entropy_temperature > 0:
            raise ConfigurationError(f"quantizer.entropy_temperature must be above 0, got {entropy_temperature}")
        self.codebook_size = codebook_size
        self.code_dim = code_dim
        self.metric = metric
        self.start = start
        self.entropy_weight = entropy_weight
        self.entropy_temperature = entropy_temperature
        self.vector_dim = projection_dim or code_dim
        if projection_dim:
            self.project_in = nn.Linear(code_dim, projection_dim)
            self.project_out = nn.Linear(projection_dim, code_dim)
        self._projects = bool(projection_dim)
        self._known_started = False
        self.register_buffer("started", torch.empty((), dtype=torch.bool))

    def reset_parameters(self) -> None:
        nn.init.normal_(self.codebook, std=1 / math.sqrt(self.vector_dim))
        nn.init.zeros_(self.started)
        self._known_started = False
        if self._projects:
            for projection in (self.project_in, self.project_out):
                nn.init.xavier_uniform_(projection.weight)
                nn.init.zeros_(projection.bias)

    @abstractmethod
    def choose(self, rows: Tensor) -> Chosen:
        """Codes and vectors of rows (N, d), and what they cost."""

    def learn(self, rows: Tensor, codes: Tensor) -> None:
        """What a training batch does to buffers, once its codes are chosen; rows (N, d) detached, codes (N,)."""

    def forward(self, latents: Tensor) -> QuantizerOutput:
        grid = (latents.shape[0], latents.shape[2], latents.shape[3])
        with torch.autocast(latents.device.type, enabled=False):
            rows = self.enter(to_rows(latents))
            if self.training:
                self.start_once(rows.detach())
            chosen = self.choose(rows)
            if self.training:
                self.learn(rows.detach(), chosen.codes)
            quantized = self.leave(chosen.vectors)
        return QuantizerOutput(
            quantized=from_rows(quantized, grid),
            codes=chosen.codes.view(grid),
            loss=chosen.loss,
            metrics=chosen.metrics,
        )

    def encode(self, latents: Tensor) -> Tensor:
        with torch.autocast(latents.device.type, enabled=False):
            codes = self.code_of(self.enter(to_rows(latents)))
        return codes.view(latents.shape[0], latents.shape[2], latents.shape[3])

    def decode(self, codes: Tensor) -> Tensor:
        with torch.autocast(self.codebook.device.type, enabled=False):
            rows = self.leave(self.rows_of(codes.flatten()))
        return from_rows(rows, (codes.shape[0], codes.shape[1], codes.shape[2]))

    @torch.no_grad()
    def distortion(self, latents: Tensor) -> Tensor:
        with torch.autocast(latents.device.type, enabled=False):
            rows = self.enter(to_rows(latents))
            errors = (rows - self.rows_of(self.code_of(rows))).square().sum(dim=1)
        return errors.view(latents.shape[0], latents.shape[2], latents.shape[3])

    def enter(self, rows: Tensor) -> Tensor:
        """Latents to where they are compared with codes: (N, D) -> (N, d)."""
        if self._projects:
            rows = linear(rows, self.project_in.weight.float(), self.project_in.bias.float())
        return self.compared(rows)

    def leave(self, rows: Tensor) -> Tensor:
        """Codes to what the decoder gets: (N, d) -> (N, D)."""
        if self._projects:
            rows = linear(rows, self.project_out.weight.float(), self.project_out.bias.float())
        return rows

    def compared(self, vectors: Tensor) -> Tensor:
        """Vectors (M, d) as the metric compares them."""
        return normalize(vectors, dim=1) if self.metric == "cosine" else vectors

    def table(self) -> Tensor:
        """The vectors of all codes, float32 (K, d), with the gradient to what they are learned by.

        In training a copy: what `learn` writes to the codebook must not reach what the backward pass remembers.
        """
        return self.compared(self.codebook.clone() if self.training else self.codebook.float())

    @torch.no_grad()
    def code_of(self, rows: Tensor) -> Tensor:
        """The code that a row (N, d) gets outside of training: int64 (N,)."""
        return nearest_codes(rows, self.table())

    def rows_of(self, codes: Tensor) -> Tensor:
        """The vectors of codes, (N,) -> (N, d)."""
        return gather_codes(self.table(), codes)

    @torch.no_grad()
    def start_once(self, rows: Tensor) -> None:
        """On the first training batch that has rows, put the codes where `start` says; rows (N, d)."""
        if self._known_started:
            return
        if not bool(self.started):  # the one look from the host; remembered from then on
            rows_in_batch = int(count_rows(rows).sum())
            if rows_in_batch == 0:
                return
            vectors = self.codebook
            if self.start != "normal":
                noise = random_numbers(3 * self.codebook_size, rows.device).view(3, -1)
                strata = torch.arange(self.codebook_size, device=rows.device)
                places = (strata + noise[0]) / self.codebook_size
                vectors = pick_rows(rows, places)
                if rows_in_batch < self.codebook_size:  # codes that share a latent go a part of the way to another
                    others = (places + (1 + noise[1] * (rows_in_batch - 2)) / rows_in_batch) % 1
                    vectors = vectors.lerp(pick_rows(rows, others), noise[2, :, None].float() / 2)
            if self.start == "kmeans":
                vectors = kmeans(rows, vectors, self.compared)
            self.place(vectors, torch.ones(self.codebook_size, dtype=torch.bool, device=rows.device))
            self.started.fill_(True)
        self._known_started = True

    @torch.no_grad()
    def place(self, vectors: Tensor, chosen: Tensor) -> None:
        """Put the chosen codes, bool (K,), on `vectors` (K, d). Methods with further statistics keep them in step."""
        torch.where(chosen[:, None], vectors, self.codebook, out=self.codebook)

    def affinity(self, rows: Tensor, table: Tensor) -> Tensor:
        """How close each row (N, d) is to each code (K, d), the larger the closer: (N, K), -||z - e||^2."""
        squares = rows.square().sum(dim=1, keepdim=True) + table.square().sum(dim=1)
        return torch.addmm(squares, rows, table.t(), beta=-1, alpha=2)

    def entropy_losses(self, rows: Tensor, table: Tensor) -> Iterator[tuple[str, tuple[float, Tensor]]]:
        """The entropy term in its two parts; nothing where its weight is 0."""
        if self.entropy_weight == 0:
            return
        stride = max(1, -(-rows.shape[0] * self.codebook_size // ASSIGNMENTS))
        log_p = (self.affinity(rows[::stride], table) / self.entropy_temperature).log_softmax(dim=1)
        entropies = -(log_p.exp() * log_p).sum(dim=1, keepdim=True)
        use = mean_over_processes(log_p.exp(), together=self.training)
        yield "code_entropy", (self.entropy_weight, mean_over_processes(entropies, together=self.training)[0])
        yield "use_entropy", (-self.entropy_weight, entropy(use))
