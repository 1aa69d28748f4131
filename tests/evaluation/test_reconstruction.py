"""Every number of an evaluation, against plain numpy on the same images."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from vqtok.data import ImageSource, open_all
from vqtok.data.loading import sampled_rows
from vqtok.errors import ConfigurationError
from vqtok.evaluation import evaluate_tokenizer, write_metrics
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig


@pytest.fixture
def source(images_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ImageSource:
    """The twelve grey images of 16 x 16, every one with a smooth part so that SSIM is not all noise."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for number, path in enumerate(sorted(images_folder.rglob("*.png"))):
        pixels = np.array(Image.open(path))
        pixels[:, :8] = np.linspace(0, 20 * number, 8).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    (found,) = open_all(str(images_folder)).values()
    return found


def pixels_of(source: ImageSource) -> npt.NDArray[np.uint8]:
    paths = [image.path for image in source.stored(range(len(source)))]
    return np.stack([np.array(Image.open(path)) for path in paths])


def by_hand(tokenizer: VQTokenizer, pixels: npt.NDArray[np.uint8]) -> dict[str, float]:
    """What metrics.json should say of uint8 (N, 16, 16), one image at a time and in float64."""
    wanted = pixels / 255
    codes = [tokenizer.encode(torch.tensor(image / 127.5 - 1, dtype=torch.float32)[None, None]) for image in pixels]
    decoded = [(np.clip(tokenizer.decode(code)[0, 0].double().numpy(), -1, 1) + 1) / 2 for code in codes]
    mse = float(np.mean((np.stack(decoded) - wanted) ** 2))
    _, counts = np.unique(np.stack([code.numpy() for code in codes]), return_counts=True)
    shares = counts / counts.sum()
    return {
        "mse": mse,
        "variance": float(wanted.var()),
        "mse_over_variance": mse / float(wanted.var()),
        "psnr": 10 * math.log10(1 / mse),
        "ssim": float(np.mean([ssim(a, b) for a, b in zip(decoded, wanted, strict=True)])),
        "perplexity": math.exp(-float((shares * np.log(shares)).sum())),
        "codes_in_use": len(counts),
        "codebook_size": 16,
        "bits_per_image": 16 * 4,
    }


def ssim(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Wang et al. 2004, equation 13, averaged over all positions: a window of 11 pixels, the edges reflected."""
    bell = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(bell, bell) / bell.sum() ** 2

    def blur(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        padded = np.pad(image, 5, mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (11, 11))
        blurred: npt.NDArray[np.float64] = (windows * window).sum(axis=(2, 3))
        return blurred

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    index = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float(index.mean())


def test_every_number_is_the_one_computed_by_hand(tiny_tokenizer: VQTokenizer, source: ImageSource) -> None:
    expected = by_hand(tiny_tokenizer, pixels_of(source))
    found = evaluate_tokenizer(tiny_tokenizer, source)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4), name
    assert found["mse"] == pytest.approx(expected["mse"], rel=1e-6)
    assert found["psnr"] == pytest.approx(expected["psnr"], rel=1e-6)


def test_no_number_depends_on_the_batch_size(tiny_tokenizer: VQTokenizer, source: ImageSource) -> None:
    whole, parts = (evaluate_tokenizer(tiny_tokenizer, source, batch_size=size) for size in (12, 5))
    assert (whole.pop("batch_size"), parts.pop("batch_size")) == (12, 5)
    for name in ("mse", "mse_over_variance", "psnr", "ssim"):
        assert whole.pop(name) == pytest.approx(parts.pop(name), rel=1e-6), name
    assert whole == parts


def test_some_images_alone_are_measured(tiny_tokenizer: VQTokenizer, source: ImageSource) -> None:
    found = evaluate_tokenizer(tiny_tokenizer, source, num_images=5, batch_size=2)
    pixels = pixels_of(source)[sampled_rows(12, 5)]
    assert (found["num_images"], found["num_images_in_split"]) == (5, 12)
    assert found["pixels_sha256"] == hashlib.sha256(pixels.tobytes()).hexdigest()
    assert found["mse"] == pytest.approx(by_hand(tiny_tokenizer, pixels)["mse"], rel=1e-6)


def test_what_decided_the_numbers_stands_beside_them(
    tiny_tokenizer: VQTokenizer, source: ImageSource, images_folder: Path
) -> None:
    """But no path of this machine: the numbers are published."""
    found = evaluate_tokenizer(tiny_tokenizer, source, batch_size=4)
    assert found["dataset"] == found["dataset_resolved"] == images_folder.name
    assert (found["split"], found["dataset_revision"], found["num_images"]) == ("train", None, 12)
    assert found["tokenizer"]["fingerprint"] == tiny_tokenizer.fingerprint
    assert found["preprocessing"] == tiny_tokenizer.config.preprocessing
    assert (found["batch_size"], found["device"], found["dtype"]) == (4, "cpu", "float32")
    assert found["versions"]["torch"] == torch.__version__
    assert (found["grid"], found["num_codebooks"]) == ([4, 4], 1)


def test_images_that_cannot_be_read_are_left_out_and_counted(
    tiny_tokenizer: VQTokenizer, source: ImageSource, images_folder: Path
) -> None:
    pixels = pixels_of(source)
    for name in ("cat/00.png", "dog/03.png"):
        (images_folder / name).write_text("no image")
    kept = [row for row, name in enumerate(source.dataset["file_name"]) if name not in ("cat/00.png", "dog/03.png")]
    found = evaluate_tokenizer(tiny_tokenizer, source, batch_size=5)
    assert (found["num_images"], found["num_unreadable"]) == (10, 2)
    assert found["mse"] == pytest.approx(by_hand(tiny_tokenizer, pixels[kept])["mse"], rel=1e-6)


@pytest.mark.parametrize("level", [0, 7])
def test_measures_that_are_not_defined_are_null(level: int, source: ImageSource, tmp_path: Path) -> None:
    blank = source.dataset.map(lambda row: {"image": {"bytes": png(level=level), "path": None}})
    flat = ImageSource(dataset=blank, image_column="image", name="blank", resolved="blank", split="train")
    config = VQTokenizerConfig(image_size=4, num_channels=1, quantizer={"codebook_size": 2, "code_dim": 2})
    found = evaluate_tokenizer(VQTokenizer(config).eval(), flat)
    assert found["variance"] == pytest.approx(0, abs=1e-12) and found["mse_over_variance"] is None
    assert found["ssim"] is None  # images of 4 x 4 have no room for its window
    assert json.loads(write_metrics(found, tmp_path / "m.json").read_text())["ssim"] is None


def png(*, level: int) -> bytes:
    import io

    buffer = io.BytesIO()
    Image.new("L", (4, 4), level).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("argument", ["num_images", "batch_size"])
def test_numbers_below_one_are_refused(tiny_tokenizer: VQTokenizer, source: ImageSource, argument: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{argument} must be (at least|from) 1.*, got 0"):
        evaluate_tokenizer(tiny_tokenizer, source, **{argument: 0})


def test_metrics_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "metrics.json"
    first = {"dataset": "digits", "split": "test", "pixels_sha256": "ab", "mse": 0.5}
    assert write_metrics(first, path) == path
    unwritable: dict[str, Any] = {"mse": 0.25, "bad": object()}
    with pytest.raises(TypeError):
        write_metrics(unwritable, path)
    assert json.loads(path.read_text()) == first
    assert [entry.name for entry in path.parent.iterdir()] == ["metrics.json"]
