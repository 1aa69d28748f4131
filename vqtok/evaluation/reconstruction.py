"""How much of an image a tokenizer keeps, on a named split, and everything one needs to measure the same again.

Pixels are compared in [0, 1], the reconstruction clamped to that range:

    mse                 mean over all pixels, channels and images of the squared error
    mse_over_variance   mse over one variance of all those elements: 0.06311 for the test split of CIFAR-10, 0.06329
                        for its training split
    psnr                10 log10(1 / mse) in dB: of the error of the whole split, not the mean over its images,
                        which one image without error makes infinite
    ssim                mean over images, Gaussian window of sigma 1.5 (Wang et al. 2004), as torchmetrics has it
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vqtok.batches import check_batch_size
from vqtok.data import Batch, ImageDataset, ImageSource, ordered_batches, to_pixels
from vqtok.data.loading import sampled_rows
from vqtok.errors import CheckpointError, ConfigurationError
from vqtok.evaluation.likelihood import BitsPerDim, check_depth
from vqtok.files import check_file, write_text
from vqtok.hub import portable, read_metrics
from vqtok.quantizers import CodeCounting, CodeUse, DimensionUse
from vqtok.tokenizer import VQTokenizer

__all__ = ["check_metrics_file", "evaluate_tokenizer", "write_metrics"]

OWN = "pixels_sha256"  # the key that tells metrics of ours from another JSON file
SMALLEST_SSIM = 6  # pixels a side: the window of 11 is padded by reflecting 5 of them


def evaluate_tokenizer(
    tokenizer: VQTokenizer,
    source: ImageSource,
    *,
    num_images: int | None = None,
    batch_size: int = 128,
    bits: BitsPerDim | None = None,
) -> dict[str, Any]:
    """Reconstruct the images of one split and measure the error and the use of codes.

    Args:
        tokenizer: on the device to compute on.
        source: the split.
        num_images: so many of its images, always the same; None takes all.
        batch_size: images at once; no number depends on it beyond the rounding of float32.
        bits: measures bits per dimension as well, on the same images; see `BitsPerDim`.

    Returns:
        What metrics.json holds: the measures above over the images that can be read (`num_unreadable` cannot),
        `variance`, `perplexity` and `codes_in_use` (or, of codes that are counted by dimension, `bits_in_use`,
        `bit_usage` and `constant_dimensions`), `codebook_size`, `bits_per_image`, and what decided them: data,
        preprocessing, tokenizer, versions and device. A measure that is not defined (of images without variance,
        without error, or too small for SSIM) is None.
        With `bits` also `bits_per_dim`.

    Raises:
        ConfigurationError: num_images below 1, or batch_size out of its bounds.
        DataError: none of the images can be read, or with `bits` one has more than 8 bits a channel.
        CheckpointError: a measure is not finite.
    """
    images, total = images_for(tokenizer, source, num_images=num_images, batch_size=batch_size)
    if bits is not None:
        bits.check_labels(source.label_names)
        check_depth(source, sampled_rows(len(images), total))
        bits.look_at(source)
    config = tokenizer.config
    sums = Sums(tokenizer, with_ssim=min(config.size) >= SMALLEST_SSIM)
    tokenizer.eval()
    measured = 0
    for batch in batches_of(images, total, batch_size):
        originals = to_pixels(batch["pixels"].to(tokenizer.device))
        codes = tokenizer.encode(originals)
        sums.add(batch["pixels"], originals, codes)
        if bits is not None:
            bits.add(originals, codes, batch.get("labels"))
        measured += len(batch["pixels"])
    measures = sums.measures()
    in_bits = {} if bits is None else bits.measures()
    check_measures(measures | in_bits | in_bits.get("learned", {}), tokenizer)
    return {
        "dataset": portable(source.name),
        "dataset_resolved": portable(source.resolved),
        "dataset_revision": source.revision,
        "split": source.split,
        "num_images": measured,
        "num_unreadable": total - measured,
        "num_images_in_split": len(images),
        OWN: sums.digest.hexdigest(),
        **measures,
        **({"bits_per_dim": in_bits} if in_bits else {}),
        "bits_per_image": tokenizer.codes_per_image * math.log2(tokenizer.codebook_size),
        "grid": list(tokenizer.grid),
        "num_codebooks": tokenizer.num_codebooks,
        "preprocessing": config.preprocessing,
        "tokenizer": {
            "repository": portable(tokenizer.repository, parts=2),  # of a run folder also its name
            "revision": tokenizer.revision,
            "fingerprint": tokenizer.fingerprint,
        },
        "batch_size": batch_size,
        "device": device_name(tokenizer.device),
        "dtype": str(tokenizer.dtype).removeprefix("torch."),
        "versions": {name: version(name) for name in ("vqtok", "torch", "torchmetrics", "transformers")},
    }


class Sums:
    """What is added up over the batches of a split, in float64 so that no number depends on their size."""

    def __init__(self, tokenizer: VQTokenizer, *, with_ssim: bool) -> None:
        # torchmetrics loads matplotlib where it finds it, and `import vqtok` must not
        from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

        self.tokenizer = tokenizer
        self.psnr = PeakSignalNoiseRatio(data_range=1.0).set_dtype(torch.float64)
        ssim = StructuralSimilarityIndexMeasure(data_range=1.0).set_dtype(torch.float64)
        self.ssim = ssim if with_ssim else None
        self.digest = hashlib.sha256()
        self.counting = CodeCounting.of(tokenizer.quantizer)
        self.counts = torch.zeros(self.counting.shape, dtype=torch.int64, device=tokenizer.device)
        self.levels = np.zeros(256, dtype=np.int64)  # how often each of the 256 values of a pixel occurs
        self.squared_error = 0.0

    def add(self, pixels: Tensor, originals: Tensor, codes: Tensor) -> None:
        """Reconstruct images and add what came of it.

        Args:
            pixels: uint8 (B, C, H, W), on the CPU.
            originals: the same in [-1, 1], on the tokenizer's device.
            codes: of these.
        """
        self.digest.update(pixels.numpy().data)
        self.levels += np.bincount(pixels.flatten().numpy(), minlength=256)
        self.counting.add(self.counts, codes)
        decoded = (self.tokenizer.decode(codes).cpu() + 1) / 2  # decode clamps to [-1, 1]
        wanted = (originals.cpu() + 1) / 2  # on the host, for MPS has no float64
        self.squared_error += float((decoded.double() - wanted.double()).square().sum())
        self.psnr.update(decoded.double(), wanted.double())
        if self.ssim is not None:
            self.ssim.update(decoded, wanted)

    def measures(self) -> dict[str, float | int | str | None]:
        """The numbers of everything that was added."""
        elements = self.levels.sum()
        values = np.arange(256) / 255
        mean = (self.levels * values).sum() / elements
        variance = float((self.levels * (values - mean) ** 2).sum() / elements)
        mse = self.squared_error / elements
        use = self.counting.use(self.counts.cpu())
        return {
            "mse": float(mse),
            "variance": variance,
            "mse_over_variance": float(mse / variance) if np.count_nonzero(self.levels) > 1 else None,
            "psnr": float(self.psnr.compute()) if mse > 0 else None,
            "ssim": None if self.ssim is None else float(self.ssim.compute()),
            **use_numbers(use),
            "codebook_size": self.counting.codebook_size,
        }


def use_numbers(use: CodeUse | DimensionUse) -> dict[str, float | int | str]:
    """The use of codes under the names it has on disk, which say when it is counted by dimension."""
    if isinstance(use, CodeUse):
        return {"perplexity": use.perplexity, "codes_in_use": use.codes_in_use}
    return {**use.metrics(), "counted": "by dimension"}


def check_measures(measures: Mapping[str, Any], tokenizer: VQTokenizer) -> None:
    """Refuse numbers that say that a tokenizer computes nothing, as finite weights may that are far too large.

    Raises:
        CheckpointError: names those that are not finite.
    """
    numbers = {name: value for name, value in measures.items() if isinstance(value, float)}
    if bad := [f"{name} {value}" for name, value in numbers.items() if not math.isfinite(value)]:
        name = tokenizer.repository or "the tokenizer"
        raise CheckpointError(f"what {name} computes is not finite: {', '.join(bad)}; train the model again")


def images_for(
    tokenizer: VQTokenizer, source: ImageSource, *, num_images: int | None, batch_size: int
) -> tuple[ImageDataset, int]:
    """The images of a split as the tokenizer takes them, and how many of them are looked at.

    Raises:
        ConfigurationError: num_images below 1, or batch_size out of its bounds.
    """
    if num_images is not None and num_images < 1:
        raise ConfigurationError(f"num_images must be at least 1, got {num_images}")
    check_batch_size(batch_size)
    config = tokenizer.config
    images = ImageDataset(source, image_size=config.size, num_channels=config.num_channels, resample=config.resample)
    return images, min(len(images), num_images or len(images))


def batches_of(images: ImageDataset, total: int, batch_size: int) -> Iterator[Batch]:
    """So many images in order, without those that cannot be read, with a progress bar."""
    with tqdm(total=total, desc="evaluating", unit="images", disable=None, leave=False) as progress:
        for batch in ordered_batches(images, batch_size, num_images=total):
            yield batch
            progress.update(len(batch["pixels"]) + len(batch["skipped"]))


def check_metrics_file(path: Path) -> None:
    """Refuse a file that `write_metrics` would refuse, before any work.

    Raises:
        ConfigurationError: `path` is a folder or a device, or holds anything but earlier metrics.
    """
    check_file(path)
    if not path.exists():
        return
    try:
        ours = OWN in read_metrics(path)
    except CheckpointError:
        ours = False
    if not ours:
        raise ConfigurationError(
            f"{path} holds no metrics of vqtok, so it will not be overwritten: choose another file"
        )


def write_metrics(metrics: dict[str, Any], path: str | Path) -> Path:
    """Write what `evaluate_tokenizer` gave as JSON, whole or not at all; earlier metrics are replaced, nothing else.

    Raises:
        ConfigurationError: as in `check_metrics_file`, or the folder cannot be written.
        DataError: the disk is full.
    """
    path = Path(path)
    check_metrics_file(path)
    write_text(path, json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    return path


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
