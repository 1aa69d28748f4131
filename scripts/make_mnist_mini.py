"""Make vqtok/data/sample/mnist-mini.parquet, the digits that the package carries, from the whole of MNIST.

    python scripts/make_mnist_mini.py                        # from the Hub's ylecun/mnist
    python scripts/make_mnist_mini.py --source FOLDER        # from a folder with its train-*.parquet and test-*.parquet

From every class 1,200 training and 200 test digits are chosen with a seeded generator and laid out in turn (0, 1, ...,
9, 0, 1, ...), so that every prefix is balanced too. The pixels are MNIST's, bit for bit. Each digit is a PNG that is
stored rather than deflated, because zstd over all of them packs better than deflate within each: 14,000 digits take
2.3 MB this way, 3.0 MB as optimised PNGs and 3.8 MB as the Hub has them.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, Image, load_dataset
from PIL import Image as PILImage

from vqtok.files import new_file

REPOSITORY = "ylecun/mnist"
TARGET = Path(__file__).resolve().parent.parent / "vqtok" / "data" / "sample" / "mnist-mini.parquet"
SPLITS = ("train", "test")
FEATURES = Features(
    {
        "image": Image(),
        "label": ClassLabel(names=[str(digit) for digit in range(10)]),
        "split": ClassLabel(names=list(SPLITS)),
    }
)


def read(source: str, split: str) -> Dataset:
    """A split of MNIST with undecoded images, from a folder of parquet files or from the Hub."""
    if Path(source).is_dir():
        files = sorted(str(path) for path in Path(source).glob(f"**/{split}-*.parquet"))
        dataset = load_dataset("parquet", data_files=files, split="train")
    else:
        dataset = load_dataset(source, split=split)
    return dataset.cast_column("image", Image(decode=False))


def choose(labels: np.ndarray, per_class: int, rng: np.random.Generator) -> np.ndarray:
    """Row numbers: `per_class` rows of each of the ten classes, the classes in turn."""
    columns = [rng.choice(np.flatnonzero(labels == digit), per_class, replace=False) for digit in range(10)]
    return np.stack(columns, axis=1).reshape(-1)


def stored_png(data: bytes) -> bytes:
    """The same 8-bit grey pixels as a PNG without deflate."""
    image = PILImage.open(io.BytesIO(data))
    if image.mode != "L":
        raise SystemExit(f"MNIST is 8-bit grey, but an image has mode {image.mode}")
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default=REPOSITORY, help="a folder of parquet files, or a Hub id")
    parser.add_argument("--out", type=Path, default=TARGET)
    parser.add_argument("--train-per-class", type=int, default=1200)
    parser.add_argument("--test-per-class", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    rng = np.random.default_rng(args.seed)
    images: list[dict[str, bytes | None]] = []
    labels: list[int] = []
    splits: list[int] = []
    for number, (split, per_class) in enumerate(zip(SPLITS, (args.train_per_class, args.test_per_class), strict=True)):
        dataset = read(args.source, split)
        rows = dataset.select(choose(np.asarray(dataset["label"]), per_class, rng))
        images += [{"bytes": stored_png(cell["bytes"]), "path": None} for cell in rows["image"]]
        labels += rows["label"]
        splits += [number] * len(rows)

    table = pa.table([images, labels, splits], schema=FEATURES.arrow_schema)
    with new_file(args.out) as partial:
        pq.write_table(  # one large page: zstd sees every digit at once
            table,
            partial,
            compression="zstd",
            compression_level=22,
            use_dictionary=["label", "split"],
            data_page_size=1 << 26,
        )
    print(f"{args.out}: {len(table):,} digits, {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
