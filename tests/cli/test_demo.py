"""vqtok demo: every stage through the command that a user would type, and nothing removed but an earlier demo."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import datasets
import pytest

from vqtok.errors import ConfigurationError
from vqtok.locks import locked
from vqtok_cli import demo as demo_file
from vqtok_cli.demo import Settings, prepare, run_demo, stages

TINY = (
    *("--steps", "2", "--batch-size", "2", "--set", "log_every=1", "--set", "eval_every=2"),
    *("--set", "checkpoint_every=2", "--set", "eval_images=2", "--set", "warmup_steps=0"),
)


def tiny_settings(images: Path) -> Settings:
    return Settings(
        dataset=str(images),
        train=(*TINY, "--hidden-size", "4", "--codebook-size", "8", "--code-dim", "2"),
        train_prior=(*TINY, "--hidden-size", "8", "--num-layers", "1", "--num-heads", "2"),
        sample=("--num-images", "4"),
    )


def test_the_whole_way_ends_in_a_page(
    images_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    page = run_demo(Path("shown"), seed=3, settings=tiny_settings(images_folder))
    assert page == Path("shown/index.html") and "<h2>Samples</h2>" in page.read_text()
    assert sorted(entry.name for entry in Path("shown").iterdir()) == [
        *("codes", "demo.json", "health", "index.html", "prior", "samples.png", "tokenizer"),
    ]
    assert "mse" in json.loads(Path("shown/tokenizer/model/metrics.json").read_text())
    record = json.loads(Path("shown/demo.json").read_text())["stages"]
    commands = [shlex.split(row["command"])[:2] for row in record]
    names = ("train", "evaluate", "inspect", "tokenize", "train-prior", "sample")
    assert commands == [["vqtok", name] for name in names] and "Health of the codebook" in page.read_text()
    assert all("--seed 3" in row["command"] for row in record if "train" in row["command"].split()[1])
    output = capsys.readouterr().out
    assert "the page is shown/index.html" in output and all(f"$ {row['command']}" in output for row in record)
    assert output.count("took ") == 6

    in_runs = ("tokenizer/notes.txt", "tokenizer/model/notes.md", "prior/samples/me.png", "prior/model/a/config.json")
    for name in ("thesis.txt", "photos/a.png", "health/mine.png", "codes/mine/state.json", *in_runs):
        mine = Path("shown", name)
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("mine")
        with pytest.raises(ConfigurationError, match=f"^shown holds {name}, which vqtok did not write"):
            run_demo(Path("shown"), overwrite=True, settings=tiny_settings(images_folder))
        assert mine.read_text() == "mine" and page.exists()
        mine.unlink()
    cut_off_before_its_end(Path("shown/codes"))
    prepare(Path("shown"), overwrite=True)
    assert not any(Path("shown").iterdir())


def cut_off_before_its_end(codes: Path) -> None:
    """Codes whose process was killed while it wrote a shard."""
    for name in ("dataset_dict.json", "train/state.json", "receipts/train/00000.json"):
        (codes / name).unlink()
    (codes / "train/data-00000-of-00001.arrow").rename(codes / "train/.vqtok-1a2b3c4d.tmp.arrow")
    (codes / ".owner.txt").write_text("process 7 on a-machine\n")


def test_every_stage_reads_what_the_one_before_wrote() -> None:
    train, evaluate, inspect, tokenize, prior, sample = [arguments for _, arguments in stages(Path("d"), 0, Settings())]
    assert train[:5] == ["train", "--dataset", "mnist-mini", "--out", "d/tokenizer"]
    for arguments in (evaluate, tokenize, prior, sample):
        assert arguments[arguments.index("--tokenizer") + 1] == "d/tokenizer/model"
    assert inspect[1] == train[4] and inspect[inspect.index("--out") + 1] == "d/health"
    assert tokenize[tokenize.index("--out") + 1] == prior[1] == "d/codes"
    assert prior[prior.index("--out") + 1] == sample[sample.index("--prior") + 1] == "d/prior"


def test_a_folder_in_use_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"mine")
    for overwrite in (False, True):
        with pytest.raises(ConfigurationError, match=r"holds no demo\.json|not empty: choose"):
            prepare(tmp_path, overwrite=overwrite)
    with pytest.raises(ConfigurationError, match="is a file"):
        prepare(tmp_path / "photo.png", overwrite=True)
    assert (tmp_path / "photo.png").read_bytes() == b"mine"


def test_a_demo_that_is_running_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, refused = tmp_path / "demo", []

    def stage(arguments: list[str]) -> None:
        before = sorted(out.rglob("*"))
        with pytest.raises(ConfigurationError, match=f"process {os.getpid()} on .* is at work in .*demo: wait for it"):
            run_demo(out, overwrite=True)
        assert sorted(out.rglob("*")) == before
        refused.append(arguments[0])

    monkeypatch.setattr(demo_file, "run_command", stage)
    monkeypatch.setattr(demo_file, "make_page", lambda *_: out / "index.html")
    run_demo(out)
    assert len(refused) == 6 and [entry.name for entry in out.iterdir()] == ["demo.json"]
    run_demo(out, overwrite=True)


@pytest.mark.parametrize("name", ["tokenizer", "codes", "prior"])
def test_a_demo_in_which_a_run_goes_on_is_not_replaced(name: str, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    (out / name).mkdir(parents=True)
    demo_file.write_record(out, [])
    with locked(out / name), pytest.raises(ConfigurationError, match=f"is at work in .*demo/{name}: wait for it"):
        prepare(out, overwrite=True)
    assert sorted(os.listdir(out)) == sorted(["demo.json", name])
    prepare(out, overwrite=True)
    assert os.listdir(out) == []


def test_an_earlier_demo_is_replaced_only_when_asked(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    prepare(out, overwrite=False)
    demo_file.write_record(out, [])
    (out / "index.html").write_text("old")
    with pytest.raises(ConfigurationError, match="not empty: choose another folder, or pass --overwrite"):
        prepare(out, overwrite=False)
    assert (out / "index.html").exists()
    prepare(out, overwrite=True)
    assert list(out.iterdir()) == []
