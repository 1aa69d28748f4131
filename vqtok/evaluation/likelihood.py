"""Bits per dimension: how short a code for the pixels themselves a tokenizer and a prior over its codes are.

A posterior that is certain of its codes z has no entropy to give back, so that (van den Oord et al. 2017, section 3.1)

    -log2 p(x) <= -log2 p(x | z) - log2 p(z)        total = distortion + rate

each divided by the C H W numbers of an image. With all codes equally probable the rate is L log2 K, the constant KL
of the paper; a learned prior has fewer bits for the codes that occur. `vqtok compress` makes files of this size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vqtok.data import ImageFormat, ImageSource, channel_bits, native_format
from vqtok.errors import ConfigurationError, DataError, MismatchError
from vqtok.hub import portable
from vqtok.priors import Prior, PriorBinding, negative_log_likelihood
from vqtok.text import counted
from vqtok.tokenizer import VQTokenizer

__all__ = ["BitsPerDim", "check_depth"]

AT_ONCE = 512  # images whose headers are read at a time


class BitsPerDim:
    """Distortion and rate, added up over batches in float64.

    Args:
        tokenizer: of any likelihood.
        prior: over its codes, on its device and in evaluation mode; None measures with equally probable codes alone.
        with_labels: give the prior the class of each image, which bounds -log2 p(x | class); else the null class, for
            p(x) needs none.

    Raises:
        ConfigurationError: the tokenizer was trained with mse, or labels for a prior without classes.
        MismatchError: the prior models the codes of another tokenizer.
    """

    def __init__(self, tokenizer: VQTokenizer, prior: Prior | None = None, *, with_labels: bool = False) -> None:
        self.tokenizer, self.prior, self.with_labels = tokenizer, prior, with_labels
        self.likelihood = tokenizer.pixel_likelihood
        self.binding = None if prior is None else PriorBinding.from_config(prior.config)
        if self.binding is not None:
            self.binding.check_tokenizer(tokenizer.fingerprint)
        if with_labels and (self.binding is None or not self.binding.num_classes):
            what = (
                "a prior, and none is given" if self.binding is None else "a prior with classes, and this one has none"
            )
            raise ConfigurationError(f"labels are for {what}: leave them out")
        self.native: ImageFormat | None = None
        self.images = 0
        self.distortion = 0.0
        self.rate = 0.0

    def check_labels(self, names: Sequence[str] | None) -> None:
        """Refuse a dataset whose classes are not those of the prior, where they are asked for.

        Raises:
            ConfigurationError: there are none.
            MismatchError: they have other names.
        """
        if not self.with_labels or self.binding is None:
            return
        if names is None:
            raise ConfigurationError("these images have no labels: measure without --with-labels")
        if tuple(names) != self.binding.label_names:
            raise MismatchError(
                f"the classes of these images are not those of the prior: {_first(names)} and "
                f"{_first(self.binding.label_names or ())}; measure without --with-labels"
            )

    def look_at(self, source: ImageSource) -> None:
        """Find out whether images are stored as the tokenizer reads them, which is said in `notes` where they are not.

        Raises:
            DataError: none of those looked at can be read.
        """
        self.native = native_format(source)

    @torch.no_grad()
    def add(self, pixel_values: Tensor, codes: Tensor, labels: Tensor | None = None) -> None:
        """Measure some images.

        Args:
            pixel_values: (B, C, H, W) in [-1, 1].
            codes: what `encode` gives of them.
            labels: int64 (B,), looked at with `with_labels`.
        """
        self.images += len(pixel_values)
        self.distortion += float(self.tokenizer.distortion(pixel_values, codes).cpu().double().sum())
        if self.prior is not None:
            nats = negative_log_likelihood(self.prior, codes, labels if self.with_labels else None)
            self.rate += float(nats.cpu().double().sum())

    def measures(self) -> dict[str, Any]:
        """What stands under `bits_per_dim` in metrics.json: the likelihood, `distortion`, and by prior rate and total.

        `uniform` is the prior of equally probable codes; `learned` also says which prior it is and whether it was given
        the `labels`. All in bits per dimension, and each total is a bound on -log2 p(x), or on -log2 p(x | class).
        """
        config = self.tokenizer.config
        dimensions = self.images * config.num_channels * math.prod(config.size)
        distortion = self.distortion / dimensions / math.log(2)
        found: dict[str, Any] = {
            "likelihood": config.likelihood["type"],
            "density": self.likelihood.is_density,
            "distortion": distortion,
            "uniform": _rate_and_total(self.tokenizer.rate / math.log(2), distortion),
        }
        if self.prior is not None:
            found["learned"] = _rate_and_total(self.rate / dimensions / math.log(2), distortion) | {
                "labels": self.with_labels,
                "prior": {
                    "repository": portable(self.prior.name_or_path or None, parts=2),
                    "revision": getattr(self.prior, "revision", None),
                },
            }
        return found

    @property
    def notes(self) -> list[str]:
        """What has to be said beside the numbers."""
        config = self.tokenizer.config
        read = ImageFormat(sizes=(config.size,), num_channels=config.num_channels)
        lines = []
        if self.native is not None and self.native != read:
            lines.append(
                f"these images have {_form(self.native)}, and the bits are those of what the tokenizer reads of them: "
                f"{_form(read)}"
            )
        if self.likelihood.is_density:
            lines.append(
                "the gaussian likelihood is a density: its bits per dimension bound the size of no file, may "
                "be below 0, and do not compare with those of other likelihoods"
            )
        if self.with_labels:
            lines.append("the learned prior was given the true class of each image: bits bound -log2 p(x | class)")
        elif self.binding is not None and self.binding.num_classes:
            lines.append("the learned prior was given no class, so that bits bound -log2 p(x)")
        return lines


def check_depth(source: ImageSource, rows: Sequence[int]) -> None:
    """Refuse images of more than 8 bits, which are scaled to 8 when they are read: their bits would be of other pixels.

    Raises:
        DataError: names the first.
    """
    for start in range(0, len(rows), AT_ONCE):
        for image in source.stored(rows[start : start + AT_ONCE]):
            try:
                bits = channel_bits(image.data(), name=image.name)
            except DataError:
                continue  # it cannot be read, which is counted elsewhere
            if bits > 8:
                raise DataError(
                    f"{image.name} has {bits} bits a channel, and bits per dimension are of pixels of 8: convert such "
                    "images to 8 bits first"
                )


def _form(images: ImageFormat) -> str:
    sizes = [" x ".join(map(str, size)) for size in dict.fromkeys((images.sizes[0], images.sizes[-1]))]
    return f"{' to '.join(sizes)} pixels (height x width) and {counted(images.num_channels, 'channel')}"


def _rate_and_total(rate: float, distortion: float) -> dict[str, Any]:
    return {"rate": rate, "total": distortion + rate}


def _first(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
