"""Gated PixelCNN over code grids.

van den Oord et al. 2016, arXiv:1606.05328. Two stacks together see every code before a position and none after it: the
vertical stack sees the rows above, whole, and the horizontal stack the codes to the left in the same row. Each layer is

    y = tanh(W_f * x + V_f y_c) . sigmoid(W_g * x + V_g y_c)                       (equation 4, y_c the class)

where the horizontal stack also gets the vertical features before their gate, and keeps a residual path (figure 2).

Instead of masking kernels, the codes are shifted once, down for the vertical and right for the horizontal stack, and
every convolution is padded on the causal side only. It is the same function, and it makes sampling cheap: a new row
needs `kernel_size // 2 + 1` rows of each layer's input, a new position as many columns.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init

from vqtok.errors import ConfigurationError
from vqtok.hub import ModelFolder, check_settings
from vqtok.options import Allowed, Types
from vqtok.priors.architecture import Architecture
from vqtok.priors.base import PriorOptions
from vqtok.priors.binding import PriorBinding

__all__ = ["PIXELCNN", "PixelCNN", "PixelCNNConfig", "PixelCNNDecoder", "PixelCNNOptions", "pixelcnn_prior"]


def is_odd(size: int) -> int:
    """The size, refused where no position is its middle."""
    if size < 3 or size % 2 == 0:
        raise ValueError
    return size


class PixelCNNOptions(PriorOptions):
    """Options of `pixelcnn`."""

    type: Literal["pixelcnn"] = "pixelcnn"
    hidden_size: int = Field(128, ge=1, le=2**16, description="channels of each stack")
    num_layers: int = Field(8, ge=1, le=2**10, description="number of gated layers")
    kernel_size: Annotated[int, AfterValidator(is_odd), Allowed("odd and at least 3")] = Field(
        5, description="side of the receptive field of one layer"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="share of features dropped after each gate in training")


class PixelCNNConfig(PreTrainedConfig):
    """What decides the network.

    Args:
        arch: options of `PixelCNNOptions`; what is left out is filled with defaults.
        vqtok: `PriorBinding.to_dict()`: grid, codebook size, classes and tokenizer.

    Raises:
        ConfigurationError: options that make no sense.
    """

    model_type = "vqtok-pixelcnn"

    arch: Any = None
    vqtok: Any = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        entries = Types({"pixelcnn": PixelCNNOptions}, default="pixelcnn").entries(self.arch or {})
        self.arch = PixelCNNOptions(**entries).model_dump()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """From what config.json says; only the keys above and `dtype` are read.

        Raises:
            CheckpointError: a key that could fetch or run code.
        """
        check_settings(config_dict, name="config.json")
        own = {"arch", "vqtok", "dtype", "torch_dtype"}
        return super().from_dict({key: value for key, value in config_dict.items() if key in own}, **kwargs)


class ClassBias(nn.Embedding):
    """A bias for each class; all classes start alike."""


class GatedLayer(nn.Module):
    """One layer of both stacks, on inputs that carry their causal padding already."""

    def __init__(self, channels: int, kernel_size: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.reach = kernel_size // 2
        self.vertical = nn.Conv2d(channels, 2 * channels, (self.reach + 1, kernel_size))
        self.horizontal = nn.Conv2d(channels, 2 * channels, (1, self.reach + 1))
        self.vertical_to_horizontal = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.residual = nn.Conv2d(channels, channels, 1)
        self.vertical_bias = ClassBias(classes, 2 * channels)
        self.horizontal_bias = ClassBias(classes, 2 * channels)
        self.dropout = nn.Dropout(dropout)

    def pad_above(self, rows: Tensor) -> Tensor:
        """Zeros for the rows above the grid and the columns beside it."""
        return F.pad(rows, (self.reach, self.reach, self.reach, 0))

    def pad_left(self, columns: Tensor) -> Tensor:
        """Zeros for the columns left of the grid."""
        return F.pad(columns, (self.reach, 0))

    def look_up(self, rows: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Vertical stack: (B, C, n + reach, w + 2 reach) -> gated (B, C, n, w) and what the horizontal stack gets."""
        features = self.vertical(rows) + self.vertical_bias(classes)[:, :, None, None]
        return self.dropout(gate(features)), self.vertical_to_horizontal(features)

    def look_left(self, columns: Tensor, from_above: Tensor, classes: Tensor) -> Tensor:
        """Horizontal stack: (B, C, n, m + reach) -> (B, C, n, m); `from_above` is (B, 2C, n, m)."""
        features = self.horizontal(columns) + from_above + self.horizontal_bias(classes)[:, :, None, None]
        residual: Tensor = self.residual(self.dropout(gate(features)))
        return columns[..., self.reach :] + residual


def gate(features: Tensor) -> Tensor:
    """Equation 4: the first half of the channels through tanh, times the second half through a sigmoid."""
    content, door = features.chunk(2, dim=1)
    return torch.tanh(content) * torch.sigmoid(door)


class PixelCNN(PreTrainedModel):
    """p(codes | class) as a product over positions in raster order, each a softmax over the K codes.

    One code per position: with several codebooks a position would need an inner order, which convolutions over the
    grid do not have; the transformer reads such codes.
    """

    config_class = PixelCNNConfig
    config: PixelCNNConfig
    base_model_prefix = "pixelcnn"
    main_input_name = "codes"
    layers: list[GatedLayer]

    def __init__(self, config: PixelCNNConfig) -> None:
        """Raises ConfigurationError for codes with more than one codebook."""
        super().__init__(config)
        self.binding = PriorBinding.from_config(config)
        if self.binding.num_codebooks > 1:
            raise ConfigurationError(
                f"a PixelCNN reads one code per position, these codes have {self.binding.num_codebooks}: use the "
                "transformer"
            )
        options = PixelCNNOptions(**config.arch)
        channels, classes = options.hidden_size, self.binding.num_classes + 1
        self.embedding = nn.Embedding(self.binding.codebook_size, channels)
        self.position = nn.Parameter(torch.zeros(1, channels, *self.binding.grid))
        self.layers = nn.ModuleList(  # type: ignore[assignment]  # a list to its readers
            GatedLayer(channels, options.kernel_size, classes, options.dropout) for _ in range(options.num_layers)
        )
        self.head = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, self.binding.codebook_size, 1)
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Called only for modules that own a tensor themselves: a branch for GatedLayer would never be reached.
        if isinstance(module, nn.Conv2d):
            init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, ClassBias):
            init.zeros_(module.weight)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)
        elif isinstance(module, PixelCNN):
            init.zeros_(module.position)

    def forward(self, codes: Tensor, classes: Tensor | None = None) -> Tensor:
        """Logits of every code given those before it in raster order.

        Args:
            codes: int64 (B, h, w), each in [0, K).
            classes: int64 (B,); the null class for all where left out.

        Returns:
            float (B, h, w, K); those at a position depend on earlier codes only.
        """
        if classes is None:
            classes = torch.full((codes.shape[0],), self.binding.null_class, device=codes.device)
        embedded = self.embedding(codes).permute(0, 3, 1, 2)
        up = F.pad(embedded, (0, 0, 1, -1)) + self.position
        left = F.pad(embedded, (1, -1)) + self.position
        for layer in self.layers:
            up, from_above = layer.look_up(layer.pad_above(up), classes)
            left = layer.look_left(layer.pad_left(left), from_above, classes)
        logits: Tensor = self.head(left)
        return logits.permute(0, 2, 3, 1)


def pixelcnn_prior(binding: PriorBinding, **options: Any) -> PixelCNN:
    """Build an untrained prior; options as in `PixelCNNOptions`, by name."""
    return PixelCNN(PixelCNNConfig(arch=options, vqtok=binding.to_dict()))


def configuration(folder: ModelFolder) -> PixelCNNConfig:
    """The configuration of the PixelCNN in a folder."""
    config: PixelCNNConfig = PixelCNNConfig.from_dict(dict(folder.config))
    return config


def code_logits(prior: PixelCNN, codes: Tensor, classes: Tensor) -> Tensor:
    """Logits (B, L, K) of every code given those before it, for codes (B, L) and classes (B,)."""
    logits: Tensor = prior(codes.view(-1, *prior.binding.grid), classes)
    return logits.flatten(1, 2)


def training_loss(prior: PixelCNN, codes: Tensor, classes: Tensor) -> Tensor:
    """Mean nats per code; arguments as in `code_logits`."""
    return F.cross_entropy(code_logits(prior, codes, classes).flatten(0, 1).float(), codes.flatten())


class PixelCNNDecoder:
    """One code after another, each layer keeping the few rows and columns of its input that the next step looks at."""

    def __init__(self, prior: PixelCNN, classes: Tensor) -> None:
        self.prior, self.classes = prior, classes
        self.height, self.width = prior.binding.grid
        self.index = 0
        channels, reach = prior.config.arch["hidden_size"], prior.config.arch["kernel_size"] // 2
        rows = prior.position.new_zeros(len(classes), channels, reach, self.width + 2 * reach)
        self.rows_above = [rows] * len(prior.layers)
        self.row = prior.position.new_zeros(len(classes), channels, 1, self.width)  # embeddings of the last whole row
        self.embedded: list[Tensor] = []  # embeddings of the codes so far in this row
        self.from_above: list[Tensor] = []
        self.columns_left: list[Tensor] = []

    def step(self, previous: Tensor | None) -> Tensor:
        """Logits (B, K) of the next code, given the codes (B,) at the position before; None at the first position."""
        if previous is not None:
            self.embedded.append(self.prior.embedding(previous)[:, :, None, None])
        y, x = divmod(self.index, self.width)
        if x == 0:
            self._start_row(y)
        # The code left of the first column is none: the stack is shifted right and starts from zeros.
        left = self.embedded[-1] if x else torch.zeros_like(self.row[..., :1])
        left = left + self.prior.position[:, :, y : y + 1, x : x + 1]
        for number, layer in enumerate(self.prior.layers):
            columns = torch.cat([self.columns_left[number], left], dim=3)
            self.columns_left[number] = columns[..., 1:]
            left = layer.look_left(columns, self.from_above[number][..., x : x + 1], self.classes)
        self.index += 1
        logits: Tensor = self.prior.head(left)
        return logits[:, :, 0, 0]

    def _start_row(self, y: int) -> None:
        if self.embedded:
            self.row, self.embedded = torch.cat(self.embedded, dim=3), []
        reach = self.prior.config.arch["kernel_size"] // 2
        up = self.row + self.prior.position[:, :, y : y + 1]
        self.from_above = []
        for number, layer in enumerate(self.prior.layers):
            rows = torch.cat([self.rows_above[number], F.pad(up, (reach, reach))], dim=2)
            self.rows_above[number] = rows[:, :, 1:]
            up, from_above = layer.look_up(rows, self.classes)
            self.from_above.append(from_above)
        edge = self.row.new_zeros(len(self.classes), self.row.shape[1], 1, reach)
        self.columns_left = [edge] * len(self.prior.layers)


PIXELCNN = Architecture(
    options=PixelCNNOptions,
    optimizer="adamw",
    model=PixelCNN,
    model_type=PixelCNNConfig.model_type,
    build=pixelcnn_prior,
    configuration=configuration,
    code_logits=code_logits,
    training_loss=training_loss,
    decoder=PixelCNNDecoder,
)

AutoConfig.register(PixelCNNConfig.model_type, PixelCNNConfig, exist_ok=True)
AutoModel.register(PixelCNNConfig, PixelCNN, exist_ok=True)
