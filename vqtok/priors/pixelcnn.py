"""Gated PixelCNN over code grids.

van den Oord et al. 2016, arXiv:1606.05328. Two stacks together see every code before a position and none after it: the
vertical stack sees the rows above, whole, and the horizontal stack the codes to the left in the same row. Each layer is

    y = tanh(W_f * x + V_f y_c) . sigmoid(W_g * x + V_g y_c)                       (equation 4, y_c the class)

where the horizontal stack also gets the vertical features before their gate, and keeps a residual path (figure 2).

Instead of masking kernels, the codes are shifted once, down for the vertical and right for the horizontal stack, and
every convolution is padded on the causal side only. It is the same function, and it makes sampling cheap: a new row
needs `kernel_size // 2 + 1` rows of each layer's input, a new position as many columns.

Of Q > 1 codes at a position the stacks see the mean of Q embeddings, times sqrt(Q), and a `DepthHead` reads the codes
of the position itself in order.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init

from vqtok.hub import ModelFolder, check_settings
from vqtok.options import Allowed, Types
from vqtok.priors.architecture import Architecture
from vqtok.priors.base import PriorOptions
from vqtok.priors.binding import PriorBinding
from vqtok.priors.depth import CodeLogits, DepthHead
from vqtok.priors.gated import ClassBias, GatedLayer
from vqtok.priors.pixelcnn_decoder import PixelCNNDecoder

__all__ = ["PIXELCNN", "PixelCNN", "PixelCNNConfig", "PixelCNNOptions", "pixelcnn_prior"]


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
    num_depth_layers: int = Field(
        3, ge=1, le=2**10, description="layers that read the codes of a position in order, where it has several"
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


class PixelCNN(PreTrainedModel):
    """p(codes | class) as a product over positions in raster order and their codes in order, of softmaxes over K."""

    config_class = PixelCNNConfig
    config: PixelCNNConfig
    base_model_prefix = "pixelcnn"
    main_input_name = "codes"
    layers: list[GatedLayer]

    def __init__(self, config: PixelCNNConfig) -> None:
        super().__init__(config)
        self.binding = PriorBinding.from_config(config)
        size, books = self.binding.codebook_size, self.binding.num_codebooks
        options = PixelCNNOptions(**config.arch)
        channels, classes = options.hidden_size, self.binding.num_classes + 1
        self.embedding = nn.Embedding(books * size, channels)
        self.position = nn.Parameter(torch.zeros(1, channels, *self.binding.grid))
        self.layers = nn.ModuleList(  # type: ignore[assignment]  # a list to its readers
            GatedLayer(channels, options.kernel_size, classes, options.dropout) for _ in range(options.num_layers)
        )
        self.head: nn.Sequential | DepthHead
        if books == 1:
            self.head = nn.Sequential(
                nn.ReLU(), nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, size, 1)
            )
        else:
            self.head = DepthHead(channels, size, books, options.num_depth_layers, options.dropout)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Called only for modules that own a tensor themselves: a branch for GatedLayer would never be reached.
        if isinstance(module, nn.Conv2d | nn.Linear):
            scale = 0.5 if isinstance(module, CodeLogits) else 1.0  # the output starts near uniform
            init.normal_(module.weight, std=scale * module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, ClassBias):
            init.zeros_(module.weight)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, PixelCNN | DepthHead):
            init.zeros_(module.position)

    def forward(self, codes: Tensor, classes: Tensor | None = None) -> Tensor:
        """Logits of every code given those before it, in raster order and at each position in order.

        Args:
            codes: int64 (B, h, w), or (B, h, w, Q) where Q > 1, each in [0, K).
            classes: int64 (B,); the null class for all where left out.

        Returns:
            float (B, h, w, K), or (B, h, w, Q, K) where Q > 1; those of a code depend on earlier codes only.
        """
        if classes is None:
            classes = torch.full((codes.shape[0],), self.binding.null_class, device=codes.device)
        each = codes.reshape(*codes.shape[:3], self.binding.num_codebooks)
        embedded = self.embed(each).permute(0, 3, 1, 2)
        up = F.pad(embedded, (0, 0, 1, -1)) + self.position
        left = F.pad(embedded, (1, -1)) + self.position
        for layer in self.layers:
            up, from_above = layer.look_up(layer.pad_above(up), classes)
            left = layer.look_left(layer.pad_left(left), from_above, classes)
        if isinstance(self.head, DepthHead):
            of_all: Tensor = self.head(left.permute(0, 2, 3, 1).flatten(0, 2), each.flatten(0, 2))
            return of_all.view(*codes.shape, -1)
        logits: Tensor = self.head(left)
        return logits.permute(0, 2, 3, 1)

    def embed(self, codes: Tensor) -> Tensor:
        """What the stacks see of positions: codes (..., Q) -> (..., C), of variance 1 before training."""
        books = codes.shape[-1]
        offsets = torch.arange(books, device=codes.device) * self.binding.codebook_size
        summed: Tensor = self.embedding(codes + offsets).sum(dim=-2)
        return summed / math.sqrt(books)

    def next_logits(self, features: Tensor, before: list[Tensor]) -> Tensor:
        """Logits (B, K) of a code from the features (B, C, 1, 1) of its position and the codes (B,) there before it."""
        if isinstance(self.head, DepthHead):
            return self.head.step(features[:, :, 0, 0], before)
        logits: Tensor = self.head(features)
        return logits[:, :, 0, 0]


def pixelcnn_prior(binding: PriorBinding, **options: Any) -> PixelCNN:
    """Build an untrained prior; options as in `PixelCNNOptions`, by name."""
    return PixelCNN(PixelCNNConfig(arch=options, vqtok=binding.to_dict()))


def configuration(folder: ModelFolder) -> PixelCNNConfig:
    """The configuration of the PixelCNN in a folder."""
    config: PixelCNNConfig = PixelCNNConfig.from_dict(dict(folder.config))
    return config


def code_logits(prior: PixelCNN, codes: Tensor, classes: Tensor) -> Tensor:
    """Logits (B, L, K) of every code given those before it, for codes (B, L) and classes (B,)."""
    logits: Tensor = prior(codes.view(prior.binding.code_shape(len(codes))), classes)
    return logits.flatten(1, -2)


def training_loss(prior: PixelCNN, codes: Tensor, classes: Tensor) -> Tensor:
    """Mean nats per code; arguments as in `code_logits`."""
    return F.cross_entropy(code_logits(prior, codes, classes).flatten(0, 1).float(), codes.flatten())


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
