"""vqtok settings, and what else comes from the descriptions: the README's table and the words of the commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command
from vqtok.codes import TokenizeOptions
from vqtok.options import setting
from vqtok.quantizers import QUANTIZERS
from vqtok.training import TokenizerTrainingConfig
from vqtok.training.prior_config import PriorTrainingConfig
from vqtok_cli import tokenize, train, train_prior
from vqtok_cli.parameters import DATASETS
from vqtok_cli.settings import METHODS

README = Path(__file__).parents[2] / "README.md"
MARKS = "<!-- vqtok settings quantizer --markdown -->\n", "<!-- end of settings -->\n"


def test_the_table_of_the_readme_is_what_the_command_prints(vqtok: Command) -> None:
    _, _, after = README.read_text().partition(MARKS[0])
    table, end, _ = after.partition(MARKS[1])
    assert end and table == vqtok("settings", "quantizer", "--markdown")[1]


@pytest.mark.parametrize("method", METHODS)
def test_every_setting_of_a_method_is_listed_as_it_is_declared(vqtok: Command, method: str) -> None:
    code, said, _ = vqtok("settings", method)
    assert code == 0
    if method in QUANTIZERS:
        names = [f"quantizer.{name}" for name in QUANTIZERS[method].Options.model_fields if name != "type"]
        assert [line.split(" = ")[0] for line in said.splitlines() if line[0] != " "] == names


def test_a_setting_has_its_default_sentence_and_what_it_may_be(vqtok: Command) -> None:
    said = vqtok("settings", "ema")[1]
    assert "quantizer.epsilon = 1e-05\n    Laplace smoothing of the counts. A number above 0.\n" in said
    said = vqtok("settings", "train")[1]
    assert "steps = 10000\n    Number of optimizer steps. A whole number of at least 1.\n" in said
    assert "compile = false\n" in said and "image_column = null\n" in said and "weight_decay = 0.0\n" in said
    assert "weight_decay = 0.05\n" in vqtok("settings", "train-prior")[1]


def test_without_a_name_it_says_which_there_are_and_a_mistyped_one_is_refused(vqtok: Command) -> None:
    code, said, _ = vqtok("settings")
    assert code == 0 and all(name in said for name in ("train-prior", *METHODS))
    code, _, complained = vqtok("settings", "gumble")
    assert code == 2 and complained.startswith("vqtok: error: there are no settings of 'gumble', only of train, ")
    assert complained.endswith("Did you mean 'gumbel'?\n")


def test_every_option_of_tokenizing_is_one_of_the_command() -> None:
    offered = [name for names in tokenize.OPTIONS.values() for name in names]
    elsewhere = {"revision", "ray_device"}  # in the name of the dataset, and --device
    assert sorted([*offered, *elsewhere]) == sorted(TokenizeOptions.model_fields)


def test_every_option_of_a_training_command_is_a_setting() -> None:
    for kind, panels in ((TokenizerTrainingConfig, train.OPTIONS), (PriorTrainingConfig, train_prior.OPTIONS)):
        for name in (name for names in panels.values() for name in names):
            assert setting(kind, name).name == name


def test_what_can_be_trained_on_is_said_in_the_same_words_everywhere() -> None:
    assert DATASETS in setting(TokenizerTrainingConfig, "dataset").description
