"""The page: everything in one file, drawn from the files of the stages, and a stage that is not there has no part."""

from __future__ import annotations

import base64
import html.parser
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.report.conftest import Left, write_run
from vqtok.errors import CheckpointError, DataError, MismatchError
from vqtok.report import write_report
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig


@pytest.fixture(scope="module")
def page(left: Left, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = write_report(
        tmp_path_factory.mktemp("page") / "index.html",
        title="digits & codes",
        tokenizer_run=left.root / "tokenizer",
        codes=left.root / "codes",
        health=left.root / "health",
        prior_run=left.root / "prior",
        samples=left.root / "samples.png",
        stages=left.root / "stages.json",
    )
    assert [entry.name for entry in path.parent.iterdir()] == ["index.html"]
    return path.read_text(encoding="utf-8")


class Balance(html.parser.HTMLParser):
    """Refuses a page whose elements do not close in order."""

    VOID = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def images(page: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(body))) for body in found]


def test_the_page_is_whole_and_closed(page: str) -> None:
    balance = Balance()
    balance.feed(page)
    assert balance.open == [] and page.startswith("<!doctype html>") and "$" not in page
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings == [
        "Reconstructions",
        "Training the tokenizer",
        "Use of the codes",
        "Health of the codebook",
        "Images as codes",
        "Training the prior",
        "Samples",
        "How it was made",
    ]


def test_the_page_asks_nothing_of_the_network(page: str) -> None:
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources and all(
        source.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,")) for source in sources
    )
    assert not re.search(r"<script|<link|@import|https?://|url\(", page)


def test_every_class_of_the_page_has_a_style(page: str) -> None:
    style, _, body = page.partition("</style>")
    used = {name for names in re.findall(r'class="?([\w -]+)', body) for name in names.split()}
    assert {name for name in used if not re.search(rf"\.{name}[ ,.{{]", style)} == set()


def test_numbers_come_from_the_files(page: str, left: Left) -> None:
    assert "3.25 bits" in page and "64 bits" in page and "1/32 of its raw pixels" in page
    assert "It ended at 0.125 on held-out images" in page
    assert "Of 16 codes" in page and "occur in 9 images" in page
    assert left.tokenizer.fingerprint[:12] in page
    assert "61 s" in page


def test_the_newest_image_grid_the_codes_and_the_samples_are_shown(page: str, left: Left) -> None:
    reconstructions, *health, grids, samples = images(page)
    assert reconstructions.getpixel((0, 0)) == 2  # the image grid of step 20, not of step 10
    assert grids.size == (3 * 83 + 3, 2 * 83 + 3)  # the three images of the test split over their grids
    assert samples.getpixel((0, 0)) == 3
    for shown, name in zip(health, ("frequencies", "distances", "positions", "examples"), strict=True):
        with Image.open(left.root / "health" / f"{name}.png") as drawing:
            assert shown.convert("RGB").tobytes() == drawing.convert("RGB").tobytes()


def test_health_is_told_in_numbers_and_words(page: str, left: Left) -> None:
    numbers = json.loads((left.root / "health" / "health.json").read_text())
    assert f"{numbers['codes_in_use']} of 16 codes in use, {numbers['dead_codes']} dead" in page
    assert page.count("<figcaption>") == 4 and 'alt="share of codes in use by training step"' in page


def test_the_health_of_another_tokenizer_is_refused(left: Left, tmp_path: Path) -> None:
    health = shutil.copytree(left.root / "health", tmp_path / "health")
    numbers = json.loads((health / "health.json").read_text())
    (health / "health.json").write_text(json.dumps(numbers | {"fingerprint": "f" * 64}))
    run = left.root / "tokenizer"
    with pytest.raises(MismatchError, match="holds the health of tokenizer ffffffffffff, and the page is about"):
        write_report(tmp_path / "index.html", title="t", tokenizer_run=run, health=health)
    with pytest.raises(CheckpointError, match=r"health\.json cannot be read"):
        write_report(tmp_path / "index.html", title="t", tokenizer_run=run, health=tmp_path / "none")
    (health / "health.json").write_text(json.dumps(numbers))
    (health / "positions.png").unlink()
    with pytest.raises(DataError, match=r"positions\.png cannot be read as an image"):
        write_report(tmp_path / "index.html", title="t", tokenizer_run=run, health=health)


def test_what_the_log_warned_of_is_on_the_page(left: Left, tmp_path: Path) -> None:
    run = shutil.copytree(left.root / "tokenizer", tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "split": "note", "note": "3 of 16 codes <in use>"}\n')
    text = write_report(tmp_path / "index.html", title="t", tokenizer_run=run, health=left.root / "health").read_text()
    assert "3 of 16 codes &lt;in use&gt;" in text


def test_what_a_likelihood_is_trained_for_is_no_squared_error(left: Left, tmp_path: Path) -> None:
    config = left.tokenizer.config.to_dict() | {"likelihood": {"type": "logistic"}}
    run = tmp_path / "run"
    rows = [
        {"step": 20, "split": "train", "loss": 3.6, "reconstruction": 3.5, "perplexity": 6.0},
        {"step": 20, "split": "test", "mse": 0.1, "bits_per_dim": 5.625, "distortion": 5.125, "perplexity": 6.5},
    ]
    write_run(run, {"dataset": "org/digits", "steps": 20}, rows)
    VQTokenizer(VQTokenizerConfig.from_dict(config)).save_pretrained(run / "model")
    page = write_report(tmp_path / "index.html", title="bits", tokenizer_run=run).read_text()
    assert "The distortion falls" in page and "It ended at 5.125 on held-out images." in page
    assert "distortion by training step" in page and "reconstruction error by training step" not in page


def test_what_people_wrote_is_escaped(page: str) -> None:
    assert "digits &amp; codes" in page and "&lt;dog&gt;" in page and "--out a&amp;b" in page
    assert "<dog>" not in page


def test_metrics_of_an_evaluation_are_shown(left: Left, tmp_path: Path) -> None:
    run = shutil.copytree(left.root / "tokenizer", tmp_path / "run")
    metrics = {"num_images": 9, "mse_over_variance": 0.04712, "psnr": None, "ssim": 0.9416, "perplexity": 12.0}
    metrics |= {"codes_in_use": 14, "codebook_size": 16}
    metrics["bits_per_dim"] = {"uniform": {"total": 5.16}, "learned": {"total": 4.971}}
    (run / "model" / "metrics.json").write_text(json.dumps(metrics))
    text = write_report(tmp_path / "index.html", title="t", tokenizer_run=run).read_text()
    assert "4.97<small>with the learned prior</small>" in text and "5.16" not in text
    metrics["bits_per_dim"] |= {"density": True, "learned": {"total": 4.971, "labels": True}}
    (run / "model" / "metrics.json").write_text(json.dumps(metrics))
    text = write_report(tmp_path / "index.html", title="t", tokenizer_run=run).read_text()
    assert "4.97<small>with the learned prior, given the class, of a density</small>" in text
    assert "0.0471" in text and "0.942" in text and "14 of 16 codes in use" in text and "&ndash;" in text


def test_a_stage_that_is_not_there_has_no_part(left: Left, tmp_path: Path) -> None:
    text = write_report(tmp_path / "index.html", title="t", tokenizer_run=left.root / "tokenizer").read_text()
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["Reconstructions", "Training the tokenizer"]


def test_codes_of_another_tokenizer_are_refused(left: Left, tiny_tokenizer: VQTokenizer, tmp_path: Path) -> None:
    run = shutil.copytree(left.root / "tokenizer", tmp_path / "run")
    tiny_tokenizer.quantizer.codebook.add_(1)
    tiny_tokenizer.save_pretrained(run / "model")
    with pytest.raises(MismatchError, match="these codes were made by tokenizer"):
        write_report(tmp_path / "index.html", title="t", tokenizer_run=run, codes=left.root / "codes")
    assert not (tmp_path / "index.html").exists()


def test_a_missing_image_grid_is_named(left: Left, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png cannot be read as an image"):
        write_report(
            tmp_path / "i.html", title="t", tokenizer_run=left.root / "tokenizer", samples=tmp_path / "gone.png"
        )


def test_matplotlib_waits_until_something_is_drawn() -> None:
    code = "import sys, vqtok.report; vqtok.report.describe; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "False"


def test_an_image_beside_those_of_training_is_no_step(left: Left, tmp_path: Path) -> None:
    run = shutil.copytree(left.root / "tokenizer", tmp_path / "run")
    shutil.copy(run / "samples" / "step-000020.png", run / "samples" / "step-last.png")
    assert "Reconstructions" in write_report(tmp_path / "index.html", title="t", tokenizer_run=run).read_text()
