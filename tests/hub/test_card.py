"""A card says what the files beside a model hold, in a form that the Hub reads, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image

from tests.hub.conftest import EVALUATION, RUN, card_text
from vqtok.errors import CheckpointError
from vqtok.hub import describe_prior, describe_tokenizer, open_folder
from vqtok.hub.card import card_of
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig

RECIPE = yaml.safe_load(RUN) | {"out": "digits"}  # as a card shows it


def test_a_tokenizer_card_states_shape_use_metrics_recipe_and_image(run: Path) -> None:
    text = card_text(run / "model", metrics=EVALUATION, repo_id="org/vq-digits")
    for line in [
        "| images | 16 x 16 pixels, grey; others are resized (bicubic) and cropped |",
        "| grid | 4 x 4, 16 codes per image |",
        "| codebook | 16 codes of 4 dimensions |",
        "| size | 64 bits per image, 0.25 per pixel, 1/32 of 8-bit pixels |",
        'tokenizer = VQTokenizer.from_pretrained("org/vq-digits")',
        'codes = tokenizer.tokenize(["image.png"])  # int64 (1, 4, 4)',
        "On 10,000 images of `uoft-cs/cifar10`, split `test`:",
        "| mse_over_variance | 0.0489 | mean squared error over the variance of the data |",
        "| codes_in_use | 512 | codes that occur on these images |",
        "![Held-out images over their reconstructions](reconstructions.png)",
        "Held-out images over their reconstructions, at step 500.",
    ]:
        assert line in text.splitlines(), text
    recipe = re.search(r"<details>.*?```yaml\n(.*?)```.*?</details>", text, re.DOTALL)
    assert recipe and yaml.safe_load(recipe[1]) == RECIPE | {"dataset": "ylecun/mnist"}
    assert str(run.parent) not in text  # nothing about the machine it was trained on


def test_the_metadata_is_what_the_hub_reads(run: Path) -> None:
    (run / "config.yaml").write_text(f"{RUN}dataset: cifar10\n")
    data = ModelCard(card_text(run / "model", metrics=EVALUATION, repo_id="org/vq-digits")).data
    assert (data.library_name, data.pipeline_tag, data.datasets) == (
        "vqtok",
        "image-feature-extraction",
        ["uoft-cs/cifar10"],
    )
    results = {r.metric_type: r for r in data.eval_results}
    psnr = results["psnr"]
    assert (psnr.metric_value, psnr.dataset_type, psnr.dataset_name) == (24.5, "uoft-cs/cifar10", "cifar10")
    assert (psnr.dataset_split, psnr.dataset_revision) == ("test", "0123abc")
    assert len(results) == 6
    assert data.license is None  # which is for the owner to choose


def test_the_example_of_a_card_runs(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (20, 30)).save(tmp_path / "image.png")
    code = re.search(r"```python\n(.*?)```", card_text(run / "model"), re.DOTALL)
    assert code
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code[1], names)
    assert tuple(names["codes"].shape) == (1, 4, 4)  # type: ignore[attr-defined]
    with Image.open("reconstruction.png") as image:
        assert image.size == (16, 16)


def test_without_an_evaluation_the_figures_are_those_of_training_and_say_so(run: Path) -> None:
    text = card_text(run / "model")
    assert "Measured while training, at step 500, on what was held out of `ylecun/mnist`:" in text
    assert "| mse | 0.0625 | mean squared error of pixels in [0, 1] |" in text
    assert "| held-out usage | 0.75 | share of the codes that occur on these images |" in text
    assert "| training usage | 0.5 | share of the codes that occurred on the last images of training |" in text
    assert "| mse | 0.5 " not in text  # of an earlier step
    assert ModelCard(text).data.eval_results is None  # the Hub gets finished evaluations only
    assert ModelCard(text).data.datasets == ["ylecun/mnist"]


def test_a_model_with_nothing_beside_it_claims_nothing(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> None:
    tiny_tokenizer.save_pretrained(tmp_path / "bare")
    text = card_text(tmp_path / "bare")
    assert "No metrics are stored with these weights. `vqtok evaluate` measures them" in text
    assert "No record of the training run is stored with these weights." in text
    assert ".png)" not in text
    assert ModelCard(text).data.datasets is None


def test_a_folder_of_images_is_no_dataset_of_the_hub(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my" / "images").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name, shown in [("my/images", "images"), (str(tmp_path / "my" / "images"), "images")]:
        metrics = EVALUATION | {"dataset": name, "dataset_resolved": name, "num_images": 100}
        text = card_text(run / "model", metrics=metrics | {"notes": ["one image in ten is held out by seed 0"]})
        assert "On 100 of the 10,000 images of" in text
        assert "\n\nOne image in ten is held out by seed 0.\n" in text
        assert f"images of `{shown}`, split" in text
        text = card_text(run / "model", metrics=metrics | {"num_images": 1, "num_images_in_split": 1})
        assert f"On 1 image of `{shown}`, split" in text
        assert ModelCard(text).data.eval_results[0].dataset_type == "custom"
    (run / "config.yaml").write_text(f"{RUN}dataset: cifar10\n")
    assert ModelCard(card_text(run / "model")).data.datasets == ["uoft-cs/cifar10"]


def test_a_rectangular_colour_tokenizer_has_its_own_numbers(tmp_path: Path) -> None:
    quantizer = {"type": "vq", "codebook_size": 100, "code_dim": 3}
    network = {"hidden_size": 8, "residual_size": 4, "downsample_factor": 8}
    config = VQTokenizerConfig(image_size=[16, 32], num_channels=3, network=network, quantizer=quantizer)
    VQTokenizer(config).save_pretrained(tmp_path / "wide")
    text = card_text(tmp_path / "wide")
    assert "| images | 16 x 32 pixels, RGB;" in text
    assert "| grid | 2 x 4, 8 codes per image |" in text
    assert "| size | 53.151 bits per image" in text  # 8 log2(100)
    assert "| quantizer | vq: beta 0.25" in text


def test_codes_of_several_codebooks_and_of_none_are_told_from_what_they_are(tmp_path: Path) -> None:
    quantizer = {"type": "product", "num_codebooks": 3, "each": {"type": "fsq", "levels": [5, 5]}}
    config = VQTokenizerConfig(image_size=16, num_channels=1, network={"hidden_size": 8}, quantizer=quantizer)
    VQTokenizer(config).save_pretrained(tmp_path / "several")
    text = card_text(tmp_path / "several")
    assert "| grid | 4 x 4 x 3, 48 codes per image |" in text
    assert "| codebook | 3 times 25 codes of 6 dimensions |" in text
    assert "| quantizer | product: " in text and "each (fsq: levels [5, 5], margin 0.001)" in text
    assert "Its quantizer: Jegou et al. 2011" in text


def test_a_prior_card_names_classes_and_the_tokenizer_it_needs(prior_folder: Path) -> None:
    (prior_folder / "metrics.json").write_text(json.dumps({"dataset": "codes", "split": "test", "bits_per_code": 2.5}))
    text = card_text(prior_folder, repo_id="org/digits-prior")
    for line in [
        "| architecture | Llama transformer |",
        "| grid | 4 x 4, 16 codes per image |",
        "| classes | 2: cat, dog |",
        'prior = load_prior("org/digits-prior")',
        'tokenizer = VQTokenizer.from_pretrained("org/vq-digits")',
        "images = generate(prior, tokenizer, num_images=16, labels=[0])  # a list of PIL images",
        "| bits_per_code | 2.5 | bits per code |",
    ]:
        assert line in text.splitlines(), text
    assert "`abababababab`" in text
    assert ModelCard(text).data.pipeline_tag == "unconditional-image-generation"


def test_a_prior_card_says_nothing_about_the_machine_it_was_trained_on(prior_folder: Path) -> None:
    config = json.loads((prior_folder / "config.json").read_text())
    config["vqtok"]["tokenizer"] = str(prior_folder.parent / "runs" / "digits" / "model")
    (prior_folder / "config.json").write_text(json.dumps(config))
    text = card_text(prior_folder, repo_id="org/digits-prior")
    assert "| tokenizer | abababababab (digits/model) |" in text and str(prior_folder.parent) not in text


def test_a_card_and_inspect_state_the_same_facts(run: Path, prior_folder: Path) -> None:
    for folder, describe in ((run / "model", describe_tokenizer), (prior_folder, describe_prior)):
        rows = describe(open_folder(folder)).rows
        text = card_text(folder)
        assert len(rows) > 5
        for name, value in rows:
            assert f"| {name} | {value} |" in text.splitlines()


def test_a_tokenizer_with_a_likelihood_says_which(tmp_path: Path) -> None:
    small = {"image_size": 8, "num_channels": 1, "network": {"hidden_size": 4, "residual_size": 2}}
    for likelihood, said in (
        ({"type": "mixture", "num_components": 3}, "mixture: num_components 3"),
        ({"type": "gaussian", "std": 0.5}, "gaussian: std 0.5"),
        ({"type": "mse"}, None),
    ):
        tokenizer = VQTokenizer(VQTokenizerConfig(likelihood=likelihood, **small))  # type: ignore[call-arg]
        tokenizer.save_pretrained(tmp_path)
        assert dict(describe_tokenizer(open_folder(tmp_path)).rows).get("likelihood") == said
    config = json.loads((tmp_path / "config.json").read_text())
    del config["likelihood"]  # as tokenizers were saved before there were others
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "likelihood" not in dict(describe_tokenizer(open_folder(tmp_path)).rows)


def test_a_card_comes_with_its_image_unless_people_wrote_one(run: Path) -> None:
    folder = open_folder(run)
    card = card_of(folder, "org/digits", folder.path)
    assert "# digits" in card.text and "(reconstructions.png)" in card.text
    assert card.images["reconstructions.png"] == run.resolve() / "samples" / "step-000500.png"
    (folder.path / "README.md").write_text("# My own\n")
    assert card_of(folder, "org/digits", folder.path).text == "# My own\n"


def test_files_that_cannot_be_read_are_named(run: Path) -> None:
    (run / "metrics.jsonl").write_text('{"step": \n')
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is damaged: every line must be an object"):
        card_text(run / "model")


@pytest.mark.parametrize(
    "content",
    [
        *(b"model: resnet\nsteps: 3\n", b"a: [", b'a: "\xff"', b"x: !!bool z", b"x: 2001-13-45", b"[" * 6000),
        *(b"a: &a [*a]", b"- 1", b"\x00"),
    ],
)
def test_what_lies_beside_the_configuration_of_another_program_is_not_published(run: Path, content: bytes) -> None:
    (run / "config.yaml").write_bytes(content)
    text = card_text(run / "model")
    assert "No record of the training run is stored with these weights." in text
    assert "No metrics are stored" in text and "resnet" not in text and ".png)" not in text


@pytest.mark.parametrize(
    "changed",
    [
        *({"notes": 5}, {"notes": [1]}, {"dataset_revision": [1]}, {"num_images": "x"}, {"num_images": [1]}),
        *({"dataset": None}, {"split": {"a": 1}}, {"mse": 10**400}),
    ],
    ids=lambda changed: str(changed)[:40],
)
def test_metrics_that_are_damaged_are_one_line(run: Path, changed: dict[str, object]) -> None:
    (run / "model" / "metrics.json").write_text(json.dumps(EVALUATION | changed))
    with pytest.raises(CheckpointError, match=r"metrics\.json (is damaged|cannot be read)"):
        card_text(run / "model")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_number_that_is_too_large_is_one_line(run: Path, split: str) -> None:
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, "split": split, "usage": 10**400}) + "\n")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is damaged"):
        card_text(run / "model")


def test_a_card_of_people_that_is_no_text_is_one_line(run: Path) -> None:
    (run / "model" / "README.md").write_bytes(b"\xff\xfe mine")
    with pytest.raises(CheckpointError, match=r"README\.md cannot be read as UTF-8 text"):
        card_text(run / "model")


def test_no_path_of_this_machine_is_published(run: Path) -> None:
    values = {
        "dataset": "~/secret/photos",
        "list": ["/srv/secret/a", ["/srv/secret/b"], 1],
        "nest": {"path": "/srv/secret/c", "/srv/secret/d": None, "windows": r"C:\secret\e"},
        "relative": "data/images",
    }
    (run / "config.yaml").write_text(RUN + yaml.safe_dump(values))
    text = card_text(run / "model")
    assert "secret" not in text
    recipe = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert recipe and yaml.safe_load(recipe[1]) == RECIPE | {
        "dataset": "photos",
        "list": ["a", ["b"], 1],
        "nest": {"path": "c", "d": None, "windows": "e"},
        "relative": "data/images",
    }


def test_the_newest_image_is_the_one_of_the_highest_step(run: Path) -> None:
    shutil.copy(run / "samples" / "step-000500.png", run / "samples" / "step-999999.png")
    Image.new("L", (8, 8), 7).save(run / "samples" / "step-1000000.png")
    Image.new("L", (8, 8), 9).save(run / "samples" / "step-last.png")  # not of training
    card = card_of(open_folder(run), "org/digits", run / "model")
    assert "at step 1000000." in card.text
    with Image.open(card.images["reconstructions.png"]) as image:
        assert image.getpixel((0, 0)) == 7
