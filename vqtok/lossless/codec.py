"""An image to bits and back: its codes under p(z), then its pixels under p(x | z), channel by channel.

A decoder has to find the probabilities of the encoder to the last bit, for one wrong rounding in a coder's table makes
noise of all that follows. So both directions are one function, on the CPU, one image at a time, in float64; and what a
network gives is rounded to multiples of 2^-16 before probabilities are made of it. Another number of threads or another
processor adds up in another order and moves the fifteenth digit: that is rounded away, but for one number in some 10^9.
Where a network keeps parts in float32 (the norms of a VQGAN and of a Llama) other processors can differ, and then the
checksum of the pixels says so.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import zlib

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn

from vqtok.data import to_pixels
from vqtok.data.images import ImageInput
from vqtok.errors import CheckpointError, ConfigurationError, DataError, MismatchError
from vqtok.lossless.coder import DAMAGED, MOST_SYMBOLS, Coder, Decoder, Encoder, package
from vqtok.lossless.files import DIGEST_BYTES, NAME_BYTES, Header
from vqtok.lossless.pixels import MODES, as_image, exact_pixels
from vqtok.priors import Prior, PriorBinding
from vqtok.priors.registry import architecture_of
from vqtok.text import printable
from vqtok.tokenizer import VQTokenizer

__all__ = ["LosslessCodec"]

STEPS = 2.0**16  # of a number that a network gives; a mean of pixels in [-1, 1] moves by 0.001 levels at most
PLACES = 256  # of an image whose tables are made at a time: 0.5 MiB for each component of a mixture, as a cache holds
MOST_CODES = MOST_SYMBOLS // 4  # of a learned prior: each takes at least one part in 2^24 of the probability
BITS_PER_SYMBOL = 24  # at most, of the coder


class LosslessCodec:
    """Compresses images with a tokenizer, and decompresses what it compressed.

    Args:
        tokenizer: of a likelihood that gives probabilities. It may be on any device; the rest is done on the CPU.
        prior: over its codes; without one all codes are equally probable. One with classes is asked without a class.

    Raises:
        ConfigurationError: a tokenizer that was trained with mse or a density, or that reads neither grey nor RGB; the
            package constriction is not installed.
        MismatchError: the prior models the codes of another tokenizer.

    Both methods raise CheckpointError where a network gives numbers that are not finite.
    """

    def __init__(self, tokenizer: VQTokenizer, prior: Prior | None = None) -> None:
        package()
        self.likelihood = tokenizer.pixel_likelihood
        if self.likelihood.is_density:
            raise ConfigurationError(
                f"the likelihood {tokenizer.config.likelihood['type']} is a density, which gives pixels no "
                "probabilities: compress with a tokenizer trained with --likelihood logistic or mixture"
            )
        self.channels = tokenizer.config.num_channels
        if self.channels not in MODES:
            raise ConfigurationError(f"images have 1 or 3 channels, and this tokenizer reads {self.channels}")
        self.tokenizer = tokenizer.eval()
        self.factor = tokenizer.config.downsample_factor
        self.fingerprint = bytes.fromhex(tokenizer.fingerprint)[:NAME_BYTES]
        self.decoder_digest = _digest(tokenizer.decoder, tokenizer.config.likelihood)[:DIGEST_BYTES]
        self.quantizer = copy.deepcopy(tokenizer.quantizer).cpu()
        self.decoder = copy.deepcopy(tokenizer.decoder).to("cpu", torch.float64)
        self.prior: Prior | None = None
        self.prior_digest: bytes | None = None
        if prior is not None:
            self.binding = PriorBinding.from_config(prior.config)
            self.binding.check_tokenizer(tokenizer.fingerprint)
            if self.binding.codebook_size > MOST_CODES:
                raise ConfigurationError(
                    f"a prior over {self.binding.codebook_size:,} codes cannot be coded with, at most {MOST_CODES:,} "
                    "can: compress without it"
                )
            self.prior_digest = _digest(prior, {})[:DIGEST_BYTES]
            self.prior = nn.Module.to(copy.deepcopy(prior), "cpu", torch.float64).eval()

    @torch.no_grad()
    def compress(self, image: ImageInput, *, name: str = "the image") -> bytes:
        """The bytes of a file that holds the pixels of an image, and nothing else of it.

        Any size will do without a prior: images are padded by their last row and column to what the tokenizer divides,
        and of the padding no pixel is coded. With a prior the codes must be a grid that it knows.

        Args:
            image: a path, bytes, a PIL image or an array.
            name: what an error calls it.

        Raises:
            DataError: it cannot be read, or is not of 8 bits and the tokenizer's channels; see `exact_pixels`.
            ConfigurationError: with a prior, an image of another size than the prior's grids stand for.
        """
        pixels = exact_pixels(image, num_channels=self.channels, name=printable(name))
        height, width, _ = pixels.shape
        grid = self._grid(height, width)
        below, beside = grid[0] * self.factor - height, grid[1] * self.factor - width
        padded = np.pad(pixels, ((0, below), (0, beside), (0, 0)), mode="edge")
        batch = torch.from_numpy(padded).permute(2, 0, 1)[None].to(self.tokenizer.device)
        codes = self.tokenizer.encode(to_pixels(batch)).cpu()
        coder = Encoder()
        self._code_pixels(coder, self._code_codes(coder, grid, codes), pixels)
        header = Header(
            height=height,
            width=width,
            channels=self.channels,
            tokenizer=self.fingerprint,
            decoder=self.decoder_digest,
            prior=self.prior_digest,
            checksum=_checksum(pixels),
        )
        return header.to_bytes() + coder.data

    @torch.no_grad()
    def decompress(self, data: bytes, *, name: str = "the compressed image") -> Image.Image:
        """The image, L or RGB, whose pixels were compressed.

        Args:
            data: what `compress` gave.
            name: what an error calls it.

        Raises:
            DataError: something else, or damaged; or the arithmetic of this machine gave other probabilities.
            MismatchError: it was compressed with another tokenizer or prior.
        """
        name = printable(name)
        try:
            header, payload = Header.from_bytes(data)
            self._check_models(header, name)
            self._check_size(header, payload)
            coder = Decoder(payload)
            codes = self._code_codes(coder, self._grid(header.height, header.width), None)
            pixels = np.zeros((header.height, header.width, self.channels), dtype=np.uint8)
            self._code_pixels(coder, codes, pixels)
            coder.check_end()
            if _checksum(pixels) != header.checksum:
                raise DataError(DAMAGED)
        except DataError as error:
            raise DataError(f"{name} cannot be decompressed: {error}") from error
        return as_image(pixels)

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the grid of codes of an image, which a learned prior must know."""
        grid = -(-height // self.factor), -(-width // self.factor)
        if self.prior is not None and grid != self.binding.grid:
            rows, columns = self.binding.grid
            raise ConfigurationError(
                f"the prior is of images of {columns * self.factor} x {rows * self.factor} pixels, and this one has "
                f"{width} x {height}: compress without --prior, which takes any size"
            )
        return grid

    def _check_models(self, header: Header, name: str) -> None:
        """Refuse a file of another tokenizer or prior."""
        if header.tokenizer != self.fingerprint:
            raise MismatchError(
                f"{name} was compressed with tokenizer {header.tokenizer.hex()}, and this one is "
                f"{self.fingerprint.hex()}: give the one it was made with"
            )
        if header.decoder != self.decoder_digest:
            raise MismatchError(
                f"{name} was compressed with tokenizer {header.tokenizer.hex()} and another decoder of its codes: give "
                "the one it was made with"
            )
        if header.prior != self.prior_digest:
            made = f"prior {header.prior.hex()}" if header.prior else "no prior"
            given = f"this one is {self.prior_digest.hex()}" if self.prior_digest else "none is given"
            wanted = "give that one with --prior" if header.prior else "leave --prior out"
            raise MismatchError(f"{name} was compressed with {made}, and {given}: {wanted}")

    def _check_size(self, header: Header, payload: bytes) -> None:
        """Refuse what no image was compressed to, before memory of the size that it claims is taken.

        Equally probable codes take log2 K bits each, so that a short file cannot stand for a large image, and with a
        prior there is one size.
        """
        if header.channels != self.channels or not header.height or not header.width:
            raise DataError(f"it claims {header.width} x {header.height} pixels of {header.channels} channels")
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and header.height * header.width > limit:
            raise DataError(
                f"{header.width} x {header.height} pixels are more than the {limit:,} that are allowed; raise "
                "PIL.Image.MAX_IMAGE_PIXELS if it is yours"
            )
        bits = 8 * len(payload)
        codes = math.prod(self._grid(header.height, header.width)) * self.tokenizer.num_codebooks
        bits_per_code = math.log2(self.tokenizer.codebook_size)
        if self.prior is None and bits < codes * bits_per_code - BITS_PER_SYMBOL:
            raise DataError(f"it is cut short: its {codes:,} codes alone take more than its {len(payload):,} bytes")
        symbols = codes + header.height * header.width * self.channels
        if bits > max(BITS_PER_SYMBOL, bits_per_code + 1) * symbols + 64:
            raise DataError(f"it has {len(payload):,} bytes, more than any image of its size takes")

    def _code_codes(self, coder: Coder, grid: tuple[int, int], codes: Tensor | None) -> Tensor:
        """Codes int64 (1, h, w[, Q]) to or from a coder; an encoder is given them."""
        size, books = self.tokenizer.codebook_size, self.tokenizer.num_codebooks
        flat = None if codes is None else codes.flatten().numpy()
        if self.prior is None:
            found = coder.code_uniform(math.prod(grid) * books, size, flat)
        else:
            found = self._code_under_prior(coder, self.prior, flat)
        return torch.from_numpy(found).view(1, *grid, *([books] if books > 1 else []))

    def _code_under_prior(
        self, coder: Coder, prior: Prior, codes: npt.NDArray[np.int64] | None
    ) -> npt.NDArray[np.int64]:
        """Codes one after another, as a prior samples them; its logits of all codes at once have other last digits."""
        decoder = architecture_of(prior).decoder(prior, self.binding.classes(None, 1))
        found: list[int] = []
        for index in range(self.binding.codes_per_image):
            logits = _rounded(decoder.step(torch.tensor(found[-1:]) if found else None))
            one = None if codes is None else codes[index : index + 1]
            found.append(int(coder.code(logits.softmax(-1).numpy(), one)[0]))
        return np.array(found, dtype=np.int64)

    def _code_pixels(self, coder: Coder, codes: Tensor, pixels: npt.NDArray[np.uint8]) -> None:
        """Pixels uint8 (H, W, C) to or from a coder; a decoder fills them in."""
        height, width, channels = pixels.shape
        parameters = self.decoder(self.quantizer.decode(codes).double())
        parameters = parameters[:, :, :height, :width].flatten(2)
        flat = pixels.reshape(-1, channels)  # a view
        for start in range(0, len(flat), PLACES):
            part = flat[start : start + PLACES]
            given = _rounded(parameters[:, :, None, start : start + PLACES])
            for channel in range(channels):
                levels = torch.zeros(1, channels, 1, len(part), dtype=torch.int64)  # as far as a decoder knows them
                levels[0, :channel, 0] = torch.from_numpy(part[:, :channel].T.astype(np.int64))
                table = self.likelihood.table(given, levels, channel)[0, 0].numpy()
                part[:, channel] = coder.code(table, part[:, channel].astype(np.int64))


def _rounded(numbers: Tensor) -> Tensor:
    """What a network gave, in float64 and without the digits that depend on the machine."""
    if not numbers.isfinite().all():
        raise CheckpointError("what the tokenizer or its prior computes is not finite: train the model again")
    return (numbers.double() * STEPS).round() / STEPS


def _checksum(pixels: npt.NDArray[np.uint8]) -> int:
    return zlib.crc32(np.ascontiguousarray(pixels).data)


def _digest(module: nn.Module, options: object) -> bytes:
    """sha256 over the tensors of a module and some options."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in sorted(module.state_dict().items())}
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    digest.update(save(tensors))
    return digest.digest()
