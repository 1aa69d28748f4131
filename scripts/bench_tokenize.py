"""How many images a second become codes, and how near is that to what decoding and encoding alone allow?

    python scripts/bench_tokenize.py [--cifar10 cifar10] [--images 10000] [--jpegs 2000] [--rounds 3] [--compile]

Two workloads, on the CPU with all cores: CIFAR-10 from parquet, and JPEG files of 512 x 512 pixels, montages of
CIFAR-10, resized to 256 x 256. For each, in turn, so that the noise of the machine falls on all alike, medians printed:

    vqtok           tokenize_images: plan, shards, receipts, dataset, all on disk
    encoder         the tokenizer alone on pixels in memory, as tokenize_images runs it: a batch on each core
    plain encoder   encoder and quantizer alone, all cores on one batch, whole and not in channels_last
    compiled        with --compile: torch.compile with freezing in channels_last, and the quantizer, likewise
    decoding        the images alone, by as many threads as `vqtok.data` takes
    map             Dataset.map with tokenizer.tokenize in batches of 64
    npy             one .npy an image, a batch of one each

The bound is what encoder and decoding would reach together if the cores did nothing else and shared both evenly: the
sum of both times, where the time of what is decoded by one thread counts for one core.
"""

from __future__ import annotations

import argparse
import copy
import io
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from vqtok import VQTokenizer, VQTokenizerConfig
from vqtok.codes import tokenize_images
from vqtok.codes.encoder import Encoder
from vqtok.data import open_images
from vqtok.data.dataset import decode_images, stacked
from vqtok.data.stored import StoredImage
from vqtok.text import counted

BATCH = 64
NPY_IMAGES = 500  # one file an image is so slow that a few tell
SIDE, SIZE = 512, 256
BOUND, OVER_MAP, OVER_NPY, OVER_PLAIN = 0.95, 1.25, 6.0, 1.2  # the aims

Way = Callable[[], int]
Pixels = npt.NDArray[np.uint8]


class Workload:
    """Images in a folder of their own, as bytes and as pixels, and what is done with them.

    Args:
        path: a parquet file, or a folder of image files.
        size: of the tokenizer's images, pixels a side.
        scratch: an empty folder.
        compiled: also measure a compiled encoder.
    """

    def __init__(self, name: str, path: Path, size: int, scratch: Path, *, compiled: bool) -> None:
        torch.manual_seed(0)
        self.name, self.path, self.scratch = name, path, scratch
        self.tokenizer: Any = VQTokenizer(VQTokenizerConfig(image_size=size)).eval()
        self.encoder = Encoder(self.tokenizer)
        source = open_images(str(path), test_share=0)
        self.stored = source.stored(range(len(source)))
        self.pixels = stacked(self.decode(self.stored), 3, (size, size))
        self.ways: dict[str, Way] = {
            "vqtok": self.by_vqtok,
            "encoder": lambda: self.encode_side_by_side(self.encoder),
            "plain encoder": lambda: self.encode(self.plainly),
            **({"compiled": self.by_compiled()} if compiled else {}),
            "decoding": self.by_decoding,
            "map": self.by_map,
            "npy": self.by_npy,
        }

    def decode(self, images: list[StoredImage]) -> list[Pixels]:
        config = self.tokenizer.config
        found = decode_images(images, image_size=config.size, num_channels=3, resample=config.resample)
        return [each for each in found if isinstance(each, np.ndarray)]

    def batches(self) -> Iterator[Pixels]:
        for start in range(0, len(self.pixels), BATCH):
            yield self.pixels[start : start + BATCH]

    def encode(self, encoder: Callable[[Pixels], Any]) -> int:
        return sum(len(encoder(batch)) for batch in self.batches())

    def encode_side_by_side(self, encoder: Callable[[Pixels], Any]) -> int:
        with self.encoder.side_by_side() as (pool, _):
            return sum(map(len, pool.map(encoder, self.batches())))

    def plainly(self, pixels: Pixels) -> Any:
        scaled = torch.from_numpy(pixels).to(torch.float32).div_(127.5).sub_(1.0)
        with torch.inference_mode():
            return self.tokenizer.quantizer.encode(self.tokenizer.encoder(scaled)).numpy().astype(np.uint16)

    def by_compiled(self) -> Way:
        import torch._inductor.config as inductor

        inductor.freezing = True
        encoder = copy.deepcopy(self.tokenizer.encoder).to(memory_format=torch.channels_last)
        compiled = torch.compile(encoder, dynamic=False)

        def run(pixels: Pixels) -> Any:
            scaled = torch.from_numpy(pixels).to(torch.float32).div_(127.5).sub_(1.0)
            with torch.no_grad():
                latents = compiled(scaled.contiguous(memory_format=torch.channels_last))
                return self.tokenizer.quantizer.encode(latents).numpy().astype(np.uint16)

        began = time.perf_counter()
        self.encode(run)
        print(f"compiling took {time.perf_counter() - began:.1f} s, first pass included")
        return lambda: self.encode_side_by_side(run)

    def by_vqtok(self) -> int:
        out = self.scratch / "codes"
        done = tokenize_images(str(self.path), self.tokenizer, out, batch_size=BATCH, progress=False)
        shutil.rmtree(out)
        return sum(done.images.values())

    def by_decoding(self) -> int:
        return sum(len(self.decode(self.stored[at : at + BATCH])) for at in range(0, len(self.stored), BATCH))

    def by_map(self) -> int:
        kind = "parquet" if self.path.is_file() else "imagefolder"
        given = {"data_files": str(self.path)} if self.path.is_file() else {"data_dir": str(self.path)}
        data = datasets.load_dataset(kind, split="train", cache_dir=str(self.scratch / "cache"), **given)
        column = next(name for name, feature in data.features.items() if isinstance(feature, datasets.Image))

        def encode(rows: dict[str, Any]) -> dict[str, Any]:
            return {"codes": self.tokenizer.tokenize(rows[column]).numpy().astype(np.uint16)}

        file = self.scratch / "mapped.arrow"
        codes = data.map(encode, batched=True, batch_size=BATCH, remove_columns=[column], cache_file_name=str(file))
        file.unlink()
        return len(codes)

    def by_npy(self) -> int:
        folder = self.scratch / "npy"
        folder.mkdir()
        images = self.stored[:NPY_IMAGES]
        for number, image in enumerate(images):
            source = image.data()
            picture = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source).convert("RGB")
            np.save(folder / f"{number}.npy", self.tokenizer.tokenize(picture).numpy())
        shutil.rmtree(folder)
        return len(images)

    @property
    def decodes_by_one_thread(self) -> bool:
        sizes = [len(image.content) for image in islice(self.stored, BATCH) if image.content is not None]
        return bool(sizes) and sum(sizes) <= (16 << 10) * len(sizes)


def measure(work: Workload, rounds: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in work.ways}
    for round_ in range(rounds + 1):
        for name, way in work.ways.items():
            began = time.perf_counter()
            images = way()
            if round_ > 0:  # the first fills caches
                times[name].append((time.perf_counter() - began) / images)
    cores = torch.get_num_threads()
    share = 1 / cores if work.decodes_by_one_thread else 1.0
    times["bound"] = [
        encoding + share * decoding for encoding, decoding in zip(times["encoder"], times["decoding"], strict=True)
    ]
    print(f"\n{work.name}, {len(work.pixels):,} images, {counted(cores, 'core')}")
    for name, found in times.items():
        print(f"  {name:<14}{1 / statistics.median(found):>9,.0f} images/s   best {1 / min(found):>9,.0f}")
    for name, other, aim in (
        ("vqtok", "bound", BOUND),
        ("vqtok", "map", OVER_MAP),
        ("vqtok", "npy", OVER_NPY),
        ("encoder", "plain encoder", OVER_PLAIN),
    ):
        ratio = statistics.median(slow / fast for slow, fast in zip(times[other], times[name], strict=True))
        print(f"  {name} / {other:<16}{ratio:>6.2f}  at least {aim:<5} {'pass' if ratio >= aim else 'MISS'}")


def write_cifar10(dataset: str, number: int, file: Path) -> Path:
    """The first images of CIFAR-10 as one parquet file."""
    data = datasets.load_dataset(dataset, split=f"train[:{number}]")
    data.to_parquet(str(file))
    return file


def write_montages(source: Path, number: int, folder: Path) -> Path:
    """JPEG files of 512 x 512 pixels, each of 256 images of CIFAR-10, those of one file twice as large."""
    images = open_images(str(source), test_share=0)
    folder.mkdir()
    noise, side = np.random.default_rng(0), 64
    for index in range(number):
        montage = Image.new("RGB", (SIDE, SIDE))
        rows = noise.integers(0, len(images), (SIDE // side) ** 2)
        for place, image in enumerate(images.stored(rows.tolist())):
            tile = Image.open(io.BytesIO(image.content or b"")).resize((side, side), Image.Resampling.BICUBIC)
            montage.paste(tile, (place % (SIDE // side) * side, place // (SIDE // side) * side))
        montage.save(folder / f"{index:05d}.jpg", quality=90)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", default="cifar10", help="its name on the Hub, or a folder of its parquet files")
    parser.add_argument("--images", type=int, default=10_000, help="of CIFAR-10")
    parser.add_argument("--jpegs", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="also measure a compiled encoder")
    args = parser.parse_args()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        small = write_cifar10(args.cifar10, args.images, folder / "cifar10.parquet")
        jpegs = write_montages(small, args.jpegs, folder / "jpegs")
        for name, path, size in (("CIFAR-10", small, 32), (f"JPEG of {SIDE} to {SIZE}", jpegs, SIZE)):
            scratch = folder / f"scratch{size}"
            scratch.mkdir()
            measure(Workload(name, path, size, scratch, compiled=args.compile), args.rounds)


if __name__ == "__main__":
    main()
