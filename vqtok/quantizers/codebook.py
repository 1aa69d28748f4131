"""A codebook of K learned vectors, and what every method that has one does with it.

    latents (B, D, h, w) -project in, unit length-> rows (N, d) -quantize-> codes, vectors -project out-> (B, D, h, w)

A method says how rows are quantized (`quantize_rows`; the nearest code is written here) and what a training batch does
to the codebook (`learn_from`, or a loss). The rest is here: a lower dimension to compare in and cosine codes (both Yu
et al. 2021, arXiv:2110.04627, section 3.2), where the codes start, and the restart of those that died.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from vqtok.quantizers.base import BatchPart, Quantizer, QuantizerOutput, from_rows, mean_squared_error, to_rows
from vqtok.quantizers.codebook_options import CodebookOptions, NearestCodeOptions
from vqtok.quantizers.distributed import SharedNoise, count_rows
from vqtok.quantizers.entropy import entropy_terms
from vqtok.quantizers.gradients import GRADIENTS, copy_of
from vqtok.quantizers.initialization import kmeans, spread_over
from vqtok.quantizers.lookup import gather_codes, nearest_codes
from vqtok.quantizers.restart import BatchUsage, CodeUsage, RestartOptions, forget

__all__ = ["CodebookQuantizer", "QuantizedRows", "quantize_to_nearest"]


@dataclass(frozen=True, kw_only=True)
class QuantizedRows:
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


class Projection(nn.Linear):
    """A learned linear map that computes in float32 whatever type the model was cast to."""

    def init_weights(self) -> None:
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, rows: Tensor) -> Tensor:
        return linear(rows, self.weight.float(), self.bias.float())


def look_again(module: nn.Module, _: object) -> None:
    """After a state was loaded, what was known of the one before holds no more."""
    assert isinstance(module, CodebookQuantizer)
    module._known_initialized = False


class CodebookQuantizer(Quantizer):
    """The part that methods with one learned codebook share; `codebook` is float32 (K, d).

    Shapes: latents (B, D, h, w); codes (B, h, w) in [0, K).
    """

    options: CodebookOptions
    codebook: Tensor
    initialized: Tensor
    usage: CodeUsage | None
    """Counts the use of codes and restarts dead ones, where a method lets codes move one by one."""

    keeps_sums: ClassVar[bool] = False
    """Whether `usage` also sums the rows of each code, and is there even if no code ever restarts."""

    training_state: tuple[str, ...] = ("batches_seen", "initialized", "noise_seed")

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        chosen = self.options
        self.codebook_size = chosen.codebook_size
        self.code_dim = chosen.code_dim
        self.embedding_dim = chosen.projection_dim or chosen.code_dim
        projects = chosen.projection_dim > 0
        self.project_in = Projection(self.code_dim, self.embedding_dim) if projects else nn.Identity()
        self.project_out = Projection(self.embedding_dim, self.code_dim) if projects else nn.Identity()
        self.noise = SharedNoise()
        self.usage = None
        if isinstance(chosen, RestartOptions) and (chosen.restart_threshold > 0 or self.keeps_sums):
            self.usage = CodeUsage(self.codebook_size, chosen, keep_sums=self.keeps_sums)
            self.training_state = (*self.training_state, *self.usage.state_dict())
        self.register_buffer("initialized", torch.empty((), dtype=torch.bool))
        self._known_initialized = False
        self.register_load_state_dict_post_hook(look_again)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.codebook, std=1 / math.sqrt(self.embedding_dim))
        nn.init.zeros_(self.initialized)
        self.noise.reset_parameters()
        if self.usage is not None:
            self.usage.reset_parameters()
        self._known_initialized = False
        for projection in (self.project_in, self.project_out):
            if isinstance(projection, Projection):
                projection.init_weights()

    @abstractmethod
    def quantize_rows(self, rows: Tensor) -> QuantizedRows:
        """Codes and vectors of rows (N, d), and what they cost."""

    def collect(self, rows: Tensor, codes: Tensor, part: BatchPart, weight: Tensor | float = 1.0) -> None:
        """Remember what a part of a training batch says of the codebook; rows (N, d) detached, codes (N,).

        A weight of 0 leaves all of its rows out.
        """
        if self.usage is not None:
            self.usage.collect(rows, codes, self.noise(2 * self.codebook_size).view(2, -1), part, weight=weight)

    def collected(self) -> list[Tensor]:
        return [] if self.usage is None else self.usage.collected

    def learn(self) -> None:
        if self.usage is not None:
            self.learn_from(self.usage.end_batch(self.noise.batches_seen))
        self.noise.batches_seen += 1

    def learn_from(self, batch: BatchUsage) -> None:
        """What a whole training batch does to the codebook."""
        self.codebook.copy_(torch.where(batch.restarted[:, None], batch.sums, self.codebook))
        assert self.usage is not None
        self.usage.restarted |= batch.restarted

    def watch(self, optimizer: torch.optim.Optimizer) -> None:
        # The moments of the old code would move the new one away from the latent that it was put on.
        if isinstance(self.codebook, nn.Parameter):
            optimizer.register_step_pre_hook(self._forget_restarted)

    def _forget_restarted(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if self.usage is not None and isinstance(self.codebook, nn.Parameter) and self.codebook.grad is not None:
            forget(optimizer, self.codebook, self.usage.restarted)
            self.usage.restarted.zero_()

    def forward(self, latents: Tensor) -> QuantizerOutput:
        grid = (latents.shape[0], latents.shape[2], latents.shape[3])
        with torch.autocast(latents.device.type, enabled=False):
            rows = self.rows_to_compare(latents)
            if self.training:
                self.initialize_once(rows.detach(), self.batch_part)
            found = self.quantize_rows(rows)
            if self.training:
                self.collect(rows.detach(), found.codes, self.batch_part)
                self.end_part()
            quantized = self.project_out(found.vectors)
        return QuantizerOutput(
            quantized=from_rows(quantized, grid), codes=found.codes.view(grid), loss=found.loss, metrics=found.metrics
        )

    def encode(self, latents: Tensor) -> Tensor:
        with torch.autocast(latents.device.type, enabled=False):
            codes = self.encode_rows(self.rows_to_compare(latents))
        return codes.view(latents.shape[0], latents.shape[2], latents.shape[3])

    def decode(self, codes: Tensor) -> Tensor:
        with torch.autocast(self.codebook.device.type, enabled=False):
            rows = self.project_out(self.decode_rows(codes.flatten()))
        return from_rows(rows, (codes.shape[0], codes.shape[1], codes.shape[2]))

    @torch.no_grad()
    def distortion(self, latents: Tensor) -> Tensor:
        with torch.autocast(latents.device.type, enabled=False):
            rows = self.rows_to_compare(latents)
            errors = (rows - self.decode_rows(self.encode_rows(rows))).square().sum(dim=1)
        return errors.view(latents.shape[0], latents.shape[2], latents.shape[3])

    def rows_to_compare(self, latents: Tensor) -> Tensor:
        """Latents (B, D, h, w) as the metric compares them with codes: (N, d)."""
        return self.normalized(self.project_in(to_rows(latents)))

    def normalized(self, vectors: Tensor) -> Tensor:
        """Vectors (M, d) at unit length where the metric is cosine."""
        return normalize(vectors, dim=1) if self.options.metric == "cosine" else vectors

    def embeddings(self) -> Tensor:
        """The vectors of all codes, float32 (K, d), with the gradient to what they are learned by.

        In training a copy: what `learn` writes to the codebook must not reach what the backward pass remembers.
        """
        return self.normalized(copy_of(self.codebook) if self.training else self.codebook.float())

    @torch.no_grad()
    def encode_rows(self, rows: Tensor) -> Tensor:
        """The code that a row (N, d) gets outside of training: int64 (N,)."""
        return nearest_codes(rows, self.embeddings())

    def decode_rows(self, codes: Tensor) -> Tensor:
        """The vectors of codes, (N,) -> (N, d)."""
        return gather_codes(self.embeddings(), codes)

    @torch.no_grad()
    def initialize(self, latents: Tensor) -> None:
        with torch.autocast(latents.device.type, enabled=False):
            self.initialize_once(self.rows_to_compare(latents), BatchPart())

    @torch.no_grad()
    def initialize_once(self, rows: Tensor, part: BatchPart) -> None:
        """On the first part of a training batch that has rows, put the codes where `init` says; rows (N, d)."""
        if self._known_initialized:
            return
        if not bool(self.initialized):  # the one look from the host; remembered from then on
            rows_in_batch = int(count_rows(rows).sum())
            if rows_in_batch == 0:
                return
            vectors: Tensor = self.codebook
            on_data = self.options.init != "normal" and rows_in_batch > 1  # one row would make all codes alike
            if on_data:
                vectors = spread_over(rows, self.noise(3 * self.codebook_size).view(3, -1))
            if on_data and self.options.init == "kmeans":
                vectors = kmeans(rows, vectors, self.normalized)
            self.begin(vectors, rows_in_batch * part.number * part.stages)
            self.initialized.fill_(True)
        self._known_initialized = True

    def begin(self, vectors: Tensor, rows_in_batch: int) -> None:
        """Put all codes on `vectors` (K, d) before the first training batch, of so many rows."""
        self.codebook.copy_(vectors)
        if self.usage is not None:
            self.usage.begin_evenly(rows_in_batch)

    def affinity(self, rows: Tensor, embeddings: Tensor) -> Tensor:
        """How close each row (N, d) is to each code (K, d), the larger the closer: (N, K), ||z||^2 - ||z - e||^2.

        The ||z||^2 is the same for all codes of a row, so that a softmax over them is that of -||z - e||^2.
        """
        return torch.addmm(-embeddings.square().sum(dim=1), rows, embeddings.t(), alpha=2)

    def entropy_losses(self, rows: Tensor, embeddings: Tensor) -> dict[str, tuple[float, Tensor]]:
        """The entropy term of rows (N, d) in its two parts; nothing where its weight is 0."""
        return entropy_terms(
            rows,
            self.codebook_size,
            lambda some: self.affinity(some, embeddings),
            weight=self.options.entropy_weight,
            temperature=self.options.entropy_temperature,
            training=self.training,
            noise=self.noise,
        )


def quantize_to_nearest(
    quantizer: CodebookQuantizer, options: NearestCodeOptions, rows: Tensor, *, learn_codebook: bool
) -> QuantizedRows:
    """Each row (N, d) takes the code nearest to it, with a gradient that goes past the choice.

    `learn_codebook` adds the term by which codes follow their latents, ||sg[z] - e||^2.
    """
    embeddings = quantizer.embeddings()
    codes = nearest_codes(rows.detach(), embeddings.detach())
    vectors = gather_codes(embeddings, codes)
    passed = GRADIENTS[options.gradient](rows, vectors) if rows.requires_grad else vectors.detach()
    losses = {"codebook": (1.0, mean_squared_error(vectors, rows.detach()))} if learn_codebook else {}
    losses |= {"commitment": (options.beta, mean_squared_error(rows, vectors.detach()))}
    losses |= quantizer.entropy_losses(rows, embeddings)
    return QuantizedRows(vectors=passed, codes=codes, losses=losses)
