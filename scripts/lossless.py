"""Whether images compress to as many bits as an evaluation says, and come back pixel by pixel.

    python scripts/lossless.py --tokenizer runs/cifar10 --dataset cifar10 --num-images 100
    python scripts/lossless.py --tokenizer runs/cifar10 --prior runs/prior --dataset cifar10 --num-images 100

Some images of a split, as the tokenizer reads them, are compressed one by one and decompressed from the bytes alone, by
another codec with models that were loaded again. Beside their size stand the bits that `vqtok evaluate --bits-per-dim`
says of the same images, and the sizes of the same pixels as PNG and lossless WebP. Exit status 1 where a pixel differs
or the coded bits are 2% more; the headers of some 25 bytes a file are counted apart, which are more than that of a file
of 28 x 28 pixels.
"""

from __future__ import annotations

import argparse
import io
import math
import sys

import numpy as np
from PIL import Image
from tqdm import tqdm

from vqtok.data import ImageDataset, open_images, ordered_batches
from vqtok.evaluation import BitsPerDim, evaluate_tokenizer
from vqtok.lossless import LosslessCodec, as_image
from vqtok.lossless.files import Header
from vqtok.priors import Prior, load_prior
from vqtok.tokenizer import VQTokenizer
from vqtok_cli.mistakes import mistakes_in_one_line

ALLOWED = 1.02


def load(arguments: argparse.Namespace) -> tuple[VQTokenizer, Prior | None]:
    tokenizer = VQTokenizer.from_pretrained(arguments.tokenizer)
    return tokenizer, load_prior(arguments.prior) if arguments.prior else None


def size_as(image: Image.Image, form: str, **options: object) -> int:
    """Bytes of an image in a lossless format."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.tell()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", required=True, help="folder, run folder or Hub id")
    parser.add_argument("--prior", help="folder, run folder or Hub id; equally probable codes without it")
    parser.add_argument("--dataset", required=True, help="images, as vqtok evaluate takes them")
    parser.add_argument("--split", default="test")
    parser.add_argument("--num-images", type=int, default=100)
    arguments = parser.parse_args()

    tokenizer, prior = load(arguments)
    source = open_images(arguments.dataset, split=arguments.split)
    bits = BitsPerDim(tokenizer, prior)
    metrics = evaluate_tokenizer(tokenizer, source, num_images=arguments.num_images, bits=bits)
    config = tokenizer.config
    dimensions = config.num_channels * math.prod(config.size)
    evaluated = metrics["bits_per_dim"]["learned" if prior else "uniform"]["total"] * dimensions * metrics["num_images"]

    encoder, decoder = LosslessCodec(tokenizer, prior), LosslessCodec(*load(arguments))
    images = ImageDataset(source, image_size=config.size, num_channels=config.num_channels, resample=config.resample)
    totals = dict.fromkeys(["coded", "headers", "png", "webp"], 0)
    different = 0
    batches = ordered_batches(images, 1, num_images=arguments.num_images)
    for batch in tqdm(batches, total=metrics["num_images"], disable=None, unit="images"):
        pixels = batch["pixels"][0].permute(1, 2, 0).numpy()
        image = as_image(pixels)
        data = encoder.compress(image)
        again = np.asarray(decoder.decompress(data)).reshape(pixels.shape)
        different += not np.array_equal(again, pixels)
        totals["coded"] += len(data)
        totals["headers"] += len(data) - len(Header.from_bytes(data)[1])
        totals["png"] += size_as(image, "PNG", optimize=True)
        totals["webp"] += size_as(image, "WEBP", lossless=True, quality=100, method=6)

    whole = dimensions * metrics["num_images"]
    print(
        f"{metrics['num_images']} images of {source.name}, split {source.split}; {different} differ after decompression"
    )
    print(f"{'':<28} {'bits':>14} {'per dimension':>14} {'of the evaluation':>18}")
    rows = {
        "evaluation": evaluated,
        "compressed files": 8 * totals["coded"],
        "without their headers": 8 * (totals["coded"] - totals["headers"]),
        "PNG": 8 * totals["png"],
        "WebP, lossless": 8 * totals["webp"],
    }
    for name, count in rows.items():
        print(f"{name:<28} {count:14,.0f} {count / whole:14.4f} {count / evaluated:18.4f}")
    return int(bool(different) or rows["without their headers"] > ALLOWED * evaluated)


if __name__ == "__main__":
    with mistakes_in_one_line():
        sys.exit(main())
