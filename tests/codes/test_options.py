"""The options of tokenizing: what is allowed, what goes together, and what of it a plan keeps."""

from __future__ import annotations

from typing import Any

import pytest

from tests.codes.conftest import make_spec
from vqtok.codes import TokenizeOptions, tokenize_dataset
from vqtok.codes.options import CodesOptions
from vqtok.codes.plan import Plan, Request, SplitPlan
from vqtok.codes.planning import make_request
from vqtok.errors import ConfigurationError, VqtokError

FINGERPRINT = "a" * 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batchsize": 3}, "'batchsize' is not an option of tokenizing. Did you mean 'batch_size'?"),
        ({"batch_size": 2**20 + 1}, "batch_size must be from 1 to 1,048,576, got 1048577"),
        ({"batch_size": 2.0}, "batch_size must be from 1 to 1,048,576, got 2.0"),
        ({"precision": "bf16"}, "precision must be one of float32, bfloat16, float16, got 'bf16'"),
        ({"columns": "label"}, "columns must be a list of names or null, got 'label'"),
        ({"columns": ["label", 3]}, "columns must be a list of names or null, got"),
        ({"num_processes": 0}, "num_processes must be a whole number of at least 1 or null, got 0"),
        ({"max_bad_share": 1.5}, "max_bad_share must be a number from 0 to 1, got 1.5"),
        ({"overwrite": "yes"}, "overwrite must be true or false, got 'yes'"),
        ({"views": "ten"}, "views must be center, ten-crop or random:K"),
        ({"background": "whit"}, "a colour must be a name such as white"),
        ({"seed": 0}, "seed 0 is for the views random:K, and they are not asked for"),
        ({"seed": 3, "views": "center"}, "seed 3 is for the views random:K, and they are center"),
        ({"images": True, "views": "random:2"}, "images cannot be kept beside the views random:2"),
        ({"ray_address": "auto"}, "ray_address belongs to executor ray: leave it out, or pass that too"),
        ({"ray_device": "cuda"}, "ray_device belongs to executor ray: leave it out, or pass that too"),
        ({"ray_device": "mps", "executor": "ray"}, "ray_device must be cpu or cuda, which each actor"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        TokenizeOptions(**options)
    assert str(refused.value).startswith(message) and "\n" not in str(refused.value)


def test_options_are_refused_before_the_tokenizer_is_looked_at() -> None:
    with pytest.raises(VqtokError, match="'split_name' is not an option of tokenizing"):
        tokenize_dataset("images", object(), "codes", split_name="train")  # type: ignore[arg-type]


@pytest.mark.parametrize("columns", [["label", "a,b"], ("label", "a,b")])
def test_columns_and_colours_may_be_written_in_several_ways(columns: Any) -> None:
    options = TokenizeOptions(columns=columns, background="red", images=True, views="random:1")
    assert options.columns == ("label", "a,b") and options.background == "#ff0000"
    assert options == TokenizeOptions(columns=columns, background=" RED", images=True, views="random:1")
    assert options == TokenizeOptions(columns=columns, background="255,0,0", images=True, views="random:1")


def test_a_request_is_what_decides_the_codes() -> None:
    spec = make_spec()
    plain = make_request(TokenizeOptions(executor="ray", overwrite=True, max_bad_share=1), "org/images", spec)
    assert plain == Request(dataset="org/images", fingerprint=spec.fingerprint)
    assert (plain.seed, plain.shard_rows) == (0, 65_536)
    assert make_request(TokenizeOptions(images=True), "org/images", spec).shard_rows == 4096
    given: dict[str, Any] = {"columns": ["label"], "views": "random:3", "seed": 7, "shard_rows": 5, "format": "parquet"}
    request = make_request(TokenizeOptions(**given), "org/images", spec)
    assert (request.columns, request.views, request.seed) == (("label",), "random:3", 7)
    assert (request.shard_rows, request.format) == (5, "parquet")


def test_what_is_in_both_is_declared_once() -> None:
    shared = set(CodesOptions.model_fields)
    assert set(Request.model_fields) - shared == {"dataset", "fingerprint", "seed", "shard_rows"}
    for name, field in Request.model_fields.items():
        if name not in ("dataset", "fingerprint"):
            assert field.description == TokenizeOptions.model_fields[name].description
    for kind in (Request, TokenizeOptions):
        assert shared.isdisjoint(set(kind.__annotations__))


@pytest.mark.parametrize(
    ("options", "digest"),
    [
        ({}, "f31f0541610eeeb0d29786a66c95d0c14a2421b45513262dbd5493815acd7914"),
        (
            {
                **{"split": "train", "dataset_config": "small", "image_column": "picture", "revision": "v1"},
                **{"columns": ["label", "a,b"], "views": "random:3", "seed": 7, "background": "#010203"},
                **{"precision": "bfloat16", "batch_size": 10, "format": "parquet", "shard_rows": 5},
            },
            "a96b998c470dcadbde76abac7aca67fc10ebe127053349807525e99e6e21de47",
        ),
    ],
)
def test_the_digest_of_a_plan_stays_what_it_was(options: dict[str, Any], digest: str) -> None:
    """Folders that were begun are gone on with, and receipts name the digest."""
    spec = make_spec(grid=(4, 4), codebook_size=16, num_codebooks=1, fingerprint=FINGERPRINT)
    split = SplitPlan(name="train", rows=12, source={"files": []}, columns={})
    request = make_request(TokenizeOptions(**options), "org/images", spec)
    assert Plan(request=request, spec=spec, splits=(split,)).digest == digest
