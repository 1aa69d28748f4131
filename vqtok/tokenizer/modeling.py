"""The tokenizer as a Hugging Face model: images to codes and back. van den Oord et al. 2017, arXiv:1711.00937."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor
from transformers.utils.generic import ModelOutput

from vqtok.errors import ConfigurationError
from vqtok.hub import push_model
from vqtok.losses import Likelihood, build_reconstruction
from vqtok.networks import build_networks
from vqtok.pretrained import ImageModel
from vqtok.quantizers import build_quantizer
from vqtok.tokenizer.codes import as_codes
from vqtok.tokenizer.configuration import VQTokenizerConfig
from vqtok.tokenizer.image_processing import VQImageProcessor

__all__ = ["VQTokenizer", "VQTokenizerOutput"]


@dataclass
class VQTokenizerOutput(ModelOutput):
    """What a forward pass gives.

    Attributes:
        loss: scalar, reconstruction plus the quantizer's loss.
        losses: `reconstruction` and every term of the quantizer before its weight; detached scalars.
        reconstruction: pixels (B, C, H, W), not clamped; of a likelihood its mean.
        codes: int64 (B, h, w), or (B, h, w, Q) where Q > 1.
        quantized: (B, D, h, w), what the decoder got.
        latents: (B, D, h, w), what the encoder gave.
    """

    loss: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    reconstruction: Tensor | None = None
    codes: Tensor | None = None
    quantized: Tensor | None = None
    latents: Tensor | None = None


PIXELS_AT_A_TIME = 2**17
"""Of images that a CPU encodes or decodes at a time, so that what a layer gives is still in its cache for the next."""


class VQTokenizer(ImageModel):
    """Encoder, quantizer and decoder, with the preprocessing that belongs to them.

    Shapes: pixel values (B, C, H, W) in [-1, 1], H and W divisible by the downsample factor; codes int64 (B, h, w), or
    (B, h, w, Q) where Q > 1.
    """

    config_class = VQTokenizerConfig
    config: VQTokenizerConfig
    kind = "tokenizer"
    base_model_prefix = "vqtok"

    def __init__(self, config: VQTokenizerConfig) -> None:
        super().__init__(config)
        quantizer = build_quantizer(config.quantizer)
        self.likelihood = build_reconstruction(config.likelihood, num_channels=config.num_channels)
        encoder, decoder = build_networks(
            config.network,
            num_channels=config.num_channels,
            code_dim=quantizer.code_dim,
            decoder_channels=self.likelihood.num_parameters,
        )
        self.encoder, self.quantizer, self.decoder = encoder, quantizer, decoder  # the encoder's type is the model's
        self.post_init()

    frozen: tuple[str, ...] = ()
    """Parts that `freeze` keeps as they are."""

    def freeze(self, *parts: str) -> None:
        """Keep encoder, quantizer or decoder as they are in training: in evaluation mode, and without a gradient."""
        self.frozen = parts
        for part in parts:
            getattr(self, part).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Training mode for what is not frozen: no dropout, moving average or restart in the rest."""
        super().train(mode)
        for part in self.frozen:
            getattr(self, part).eval()
        return self

    def forward(self, pixel_values: Tensor, *, reconstruct: bool = True) -> VQTokenizerOutput:
        """Reconstruct pixel values (B, C, H, W) and say how well; the loss is the mean over all elements.

        Of a frozen encoder it is without the quantizer's loss where nothing could make that smaller.

        Args:
            pixel_values: in [-1, 1]; a likelihood takes each for the level of 8 bits that is nearest.
            reconstruct: False leaves `reconstruction` out, which no loss needs.

        Raises:
            ConfigurationError: the number of channels or the size does not fit the network.
        """
        latents = self.encoder(self.checked(pixel_values))
        quantized = self.quantizer(latents)
        parameters = self.decoder(quantized.quantized.to(self.dtype))
        reconstruction_loss = self.likelihood.loss(parameters, pixel_values)
        learned = "encoder" not in self.frozen or quantized.loss.requires_grad
        return VQTokenizerOutput(
            loss=reconstruction_loss + quantized.loss if learned else reconstruction_loss,
            losses={"reconstruction": reconstruction_loss.detach(), **quantized.metrics},
            reconstruction=self.likelihood.mean(parameters) if reconstruct else None,
            codes=quantized.codes,
            quantized=quantized.quantized,
            latents=latents,
        )

    @torch.no_grad()
    def encode(self, pixel_values: Tensor) -> Tensor:
        """Codes of pixel values (B, C, H, W) in [-1, 1]: int64 (B, h, w), or (B, h, w, Q) where Q > 1."""
        parts = _parts(self.checked(pixel_values), factor=1)
        return torch.cat([self.quantizer.encode(self.encoder(part)) for part in parts])

    @torch.no_grad()
    def decode(self, codes: Any) -> Tensor:
        """Pixels (B, C, H, W) in [-1, 1] of codes (B, h, w) or (B, h, w, Q).

        Lists, arrays and dataset columns serve as well, as do one grid alone and flat codes (B, L).

        Raises:
            ConfigurationError: another shape, no integers, or a code outside [0, K).
        """
        return torch.cat([self.likelihood.mean(part).float().clamp_(-1, 1) for part in self._decoded(codes)])

    @torch.no_grad()
    def sample_pixels(self, codes: Any, generator: torch.Generator | None = None) -> Tensor:
        """Pixels (B, C, H, W) drawn from p(x | codes), where `decode` gives their mean; codes as it takes them.

        Raises:
            ConfigurationError: also for a tokenizer that was trained with mse and has no such distribution.
        """
        likelihood = self.pixel_likelihood
        return torch.cat([likelihood.sample(part, generator).clamp_(-1, 1) for part in self._decoded(codes)])

    @torch.no_grad()
    def distortion(self, pixel_values: Tensor, codes: Any) -> Tensor:
        """-ln p(x | codes) of pixel values (B, C, H, W) in nats per image: float64 (B,).

        With the rate -ln p(codes), which is L ln K where all codes are equally probable, this bounds -ln p(x): a
        posterior that is certain of its codes has no entropy to give back (van den Oord et al. 2017, section 3.1).

        Raises:
            ConfigurationError: as in `sample_pixels`, or pixel values of another shape than `decode` gives.
        """
        likelihood = self.pixel_likelihood
        codes = as_codes(codes, self.grid, self.num_codebooks)
        height, width = (self.config.downsample_factor * side for side in codes.shape[1:3])
        wanted = (len(codes), self.config.num_channels, height, width)
        if pixel_values.shape != wanted:
            raise ConfigurationError(
                f"pixel values must be {wanted}, as their codes stand for, got {tuple(pixel_values.shape)}"
            )
        decoded = list(self._decoded(codes))
        pixels = pixel_values.to(self.device).split([len(part) for part in decoded])
        pairs = zip(decoded, pixels, strict=True)
        return torch.cat([likelihood.negative_log_likelihood(part, wanted) for part, wanted in pairs])

    def _decoded(self, codes: Any) -> Iterator[Tensor]:
        """What the decoder gives of codes, some images at a time; errors as in `decode`."""
        codes = as_codes(codes, self.grid, self.num_codebooks)
        if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) >= self.codebook_size):
            raise ConfigurationError(
                f"codes must be in [0, {self.codebook_size}), got {int(codes.min())} to {int(codes.max())}"
            )
        quantized = self.quantizer.decode(codes.to(self.device))
        for part in _parts(quantized.to(self.dtype), factor=self.config.downsample_factor):
            yield self.decoder(part)

    @property
    def pixel_likelihood(self) -> Likelihood:
        """p(x | z).

        Raises:
            ConfigurationError: the tokenizer was trained with mse, which gives pixels and no distribution.
        """
        if not isinstance(self.likelihood, Likelihood):
            raise ConfigurationError(
                "this tokenizer was trained with mse, so its decoder gives pixels and no probabilities: train one with "
                "--likelihood logistic or mixture"
            )
        return self.likelihood

    def tokenize(self, images: Any) -> Tensor:
        """Codes of images: a PIL image, a path, an array, a tensor, or a list of them; resized as the model needs."""
        return self.encode(self.image_processor(images, return_tensors="pt")["pixel_values"].to(self.device))

    def detokenize(self, codes: Any) -> list[Image.Image]:
        """Images of codes (B, h, w) or (B, h, w, Q), or in any other form that `decode` takes."""
        return self.image_processor.post_process(self.decode(codes))

    @property
    def image_processor(self) -> VQImageProcessor:
        """The preprocessing that this tokenizer was trained with."""
        height, width = self.config.size
        return VQImageProcessor(
            size={"height": height, "width": width},
            num_channels=self.config.num_channels,
            resample=self.config.resample,
        )

    @property
    def codebook_size(self) -> int:
        """K, codes per codebook."""
        return self.quantizer.codebook_size

    @property
    def num_codebooks(self) -> int:
        """Q, codes per position."""
        return self.quantizer.num_codebooks

    @property
    def codes_per_image(self) -> int:
        """L = h * w * Q."""
        return self.grid[0] * self.grid[1] * self.num_codebooks

    @property
    def rate(self) -> float:
        """-ln p(z) where all codes are equally probable, the constant KL of the paper, in nats per dimension."""
        dimensions = self.config.num_channels * math.prod(self.config.size)
        nats: float = self.codes_per_image * math.log(self.codebook_size) / dimensions
        return nats

    @property
    def fingerprint(self) -> str:
        """sha256, as hex, over what decides the codes: encoder, codebook and preprocessing, in their present types.

        Two tokenizers with one fingerprint give one image the same codes. A model cast to another type gives other
        codes here and there, and so has another fingerprint.
        """
        tensors = {f"encoder.{name}": tensor for name, tensor in self.encoder.state_dict().items()}
        for name, tensor in self.quantizer.state_dict().items():
            if name.rsplit(".", 1)[-1] not in self.quantizer.training_state:
                # As the quantizer computes and a load keeps it, whatever it was cast to since.
                tensors[f"quantizer.{name}"] = tensor.float() if tensor.is_floating_point() else tensor
        digest = hashlib.sha256(json.dumps(self.config.preprocessing, sort_keys=True).encode())
        digest.update(json.dumps([self.config.network, self.config.quantizer], sort_keys=True).encode())
        digest.update(save({name: tensor.cpu().contiguous() for name, tensor in sorted(tensors.items())}))
        return digest.hexdigest()

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Write config.json, model.safetensors and preprocessor_config.json."""
        super().save_pretrained(save_directory, *args, **kwargs)
        self.image_processor.save_pretrained(save_directory)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:  # type: ignore[override]
        """Send weights, processor and card to the Hub in one commit; see `vqtok.hub.push_model`."""
        return push_model(self, repo_id, **kwargs)


def _parts(images: Tensor, *, factor: int) -> tuple[Tensor, ...]:
    """Images (B, C, H, W) in channels_last, on a CPU as several batches of up to `PIXELS_AT_A_TIME`.

    Args:
        factor: pixels a side that one place of H x W stands for.
    """
    images = images.contiguous(memory_format=torch.channels_last)
    if images.device.type != "cpu":
        return (images,)
    pixels = images.shape[2] * images.shape[3] * factor**2
    parts: tuple[Tensor, ...] = images.split(max(1, PIXELS_AT_A_TIME // pixels))
    return parts
