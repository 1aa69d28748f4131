from __future__ import annotations

import math
import re
from collections import Counter

import pytest
import torch
from PIL import Image
from transformers import LlamaForCausalLM

from tests.priors.conftest import CASES, make_binding, make_prior
from tests.priors.test_next_code import probabilities_by_hand
from vqtok.errors import ConfigurationError, MismatchError
from vqtok.priors import (
    Prior,
    PriorBinding,
    code_logits,
    generate,
    negative_log_likelihood,
    sample_codes,
)
from vqtok.priors.registry import architecture_of

DECODED = [
    ("pixelcnn", {"grid": (4, 3)}),
    ("pixelcnn", {"grid": (1, 1)}),
    ("pixelcnn", {"grid": (3, 2), "num_codebooks": 3}),
    ("pixelcnn", {"grid": (1, 1), "num_codebooks": 4}),
    ("transformer", {"grid": (4, 3)}),
    ("transformer", {"grid": (2, 3), "num_codebooks": 2}),
]


@pytest.mark.parametrize(("kind", "changes"), DECODED)
@torch.no_grad()
def test_step_by_step_equals_the_full_forward(kind: str, changes: dict[str, object]) -> None:
    binding = make_binding(codebook_size=5, **changes)
    prior = make_prior(kind, binding)
    codes = torch.randint(5, (4, binding.codes_per_image), generator=torch.Generator().manual_seed(1))
    classes = torch.tensor([0, 1, 2, 0])
    decoder = architecture_of(prior).decoder(prior, classes)
    steps = [decoder.step(previous) for previous in (None, *codes.unbind(1)[:-1])]
    torch.testing.assert_close(torch.stack(steps, dim=1), code_logits(prior, codes, classes), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "changes"), DECODED)
@torch.no_grad()
def test_a_decoder_goes_on_with_the_rows_that_are_selected(kind: str, changes: dict[str, object]) -> None:
    """After every step other rows, of another number: what is kept of the codes so far must move with them."""
    binding = make_binding(codebook_size=5, **changes)
    prior, length = make_prior(kind, binding), binding.codes_per_image
    random = torch.Generator().manual_seed(1)
    classes, codes = torch.tensor([0, 1, 2, 0]), torch.randint(5, (4, length), generator=random)
    decoder = architecture_of(prior).decoder(prior, classes)
    for index in range(length):
        logits = decoder.step(codes[:, index - 1] if index else None)
        torch.testing.assert_close(logits, code_logits(prior, codes, classes)[:, index], rtol=1e-4, atol=1e-5)
        rows = torch.randint(len(codes), (3 + index % 4,), generator=random)
        decoder.select(rows)
        codes, classes = codes[rows], classes[rows]
        codes[:, index:] = torch.randint(5, codes[:, index:].shape, generator=random)


@pytest.mark.parametrize("scale", [1.0, 2.5])
@torch.no_grad()
def test_sampling_equals_the_definition(prior: Prior, binding: PriorBinding, scale: float) -> None:
    """The full forward anew for every code, guidance as the paper writes it, filters in plain Python."""
    count, length = 6, binding.codes_per_image
    ours = sample_codes(
        prior, num_images=count, labels=[0, 1], temperature=0.8, top_k=2, top_p=0.9, guidance_scale=scale, seed=3
    )
    noise = torch.rand(count, length, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    codes = torch.zeros(count, length, dtype=torch.long)
    for image in range(count):
        for position in range(length):
            row = codes[image : image + 1]
            conditional = code_logits(prior, row, torch.tensor([image % 2]))[0, position].double()
            null = code_logits(prior, row, torch.tensor([2]))[0, position].double()
            logits = (null + scale * (conditional - null)) / 0.8
            below = 0.0
            for code, probability in enumerate(probabilities_by_hand(logits.tolist(), 2, 0.9)):
                below += probability
                if noise[image, position] < below:
                    codes[image, position] = code
                    break
    assert ours.shape == binding.code_shape(count)
    assert ours.dtype == torch.int64
    assert torch.equal(ours.flatten(1), codes)


def test_samples_follow_the_likelihood(prior: Prior, every_grid: torch.Tensor) -> None:
    count = 4000
    sampled = sample_codes(prior, num_images=count, labels=1, seed=0, batch_size=count)
    seen = Counter(map(tuple, sampled.flatten(1).tolist()))
    probabilities = torch.exp(-negative_log_likelihood(prior, every_grid, 1))
    frequencies = torch.tensor([seen[tuple(grid)] / count for grid in every_grid.flatten(1).tolist()])
    error = (probabilities * (1 - probabilities) / count).sqrt() + 1e-4
    assert ((frequencies - probabilities) / error).abs().max() < 4.5


@torch.no_grad()
@pytest.mark.parametrize("prior", [case for case in CASES if case.startswith("transformer")], indirect=True)
def test_greedy_equals_generate(prior: Prior, binding: PriorBinding) -> None:
    """Any engine that serves Llama samples what we sample, for the generation settings travel with the weights."""
    assert isinstance(prior, LlamaForCausalLM)
    ours = sample_codes(prior, num_images=2, labels=[0, 1], top_k=1, seed=0).flatten(1)
    codes = binding.num_codebooks * binding.codebook_size
    start = torch.tensor([[codes], [codes + 1]])
    if binding.num_codebooks == 1:
        theirs = prior.generate(start, attention_mask=torch.ones_like(start), do_sample=False)
        assert torch.equal(theirs[:, 1:], ours)
    sampled = prior.generate(start.repeat(50, 1), attention_mask=torch.ones(100, 1).long())
    assert sampled.shape == (100, 1 + binding.codes_per_image)
    assert sampled[:, 1:].max() < codes


def test_a_seed_decides_whatever_the_batch_size(prior: Prior) -> None:
    alike = [sample_codes(prior, num_images=7, labels=[0, 1], seed=5, batch_size=size) for size in (1, 3, 64)]
    assert torch.equal(alike[0], alike[1])
    assert torch.equal(alike[0], alike[2])
    assert not torch.equal(alike[0], sample_codes(prior, num_images=7, labels=[0, 1], seed=6))
    assert not torch.equal(sample_codes(prior, num_images=32), sample_codes(prior, num_images=32))


def test_sampling_leaves_the_mode_and_the_random_state_alone(prior: Prior) -> None:
    state = torch.get_rng_state()
    prior.train()
    sample_codes(prior, num_images=1, seed=0)
    assert prior.training
    prior.eval()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_images": 0},
        {"temperature": 0.0},
        {"temperature": 1e-308},
        {"temperature": math.inf},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"batch_size": 0},
        {"batch_size": 10**20},
        {"seed": -1},
        {"seed": 2**64},
        {"labels": 2},
        {"guidance_scale": 2.0},
        {"guidance_scale": math.nan, "labels": 0},
        {"guidance_scale": 1e308, "labels": 0},
    ],
)
def test_numbers_out_of_range_are_refused(prior: Prior, wrong: dict[str, float]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ConfigurationError, match=rf"{name.rstrip('s')}.*{re.escape(str(value))}"):
        sample_codes(prior, **wrong)  # type: ignore[arg-type]


def test_labels_for_a_prior_without_classes_are_refused() -> None:
    prior = make_prior("transformer", make_binding(label_names=None))
    assert sample_codes(prior, num_images=2).shape == (2, 2, 2)
    with pytest.raises(ConfigurationError, match="without classes"):
        sample_codes(prior, num_images=2, labels=0)


class GreyTokenizer:
    """Decodes a grid as so many grey pixels."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def detokenize(self, codes: torch.Tensor) -> list[Image.Image]:
        return [Image.new("L", (1, 1), int(grid.sum())) for grid in codes]


def test_generate_decodes_what_was_sampled(prior: Prior) -> None:
    images = generate(prior, GreyTokenizer("f" * 64), num_images=5, labels=[0], seed=4, batch_size=2)
    codes = sample_codes(prior, num_images=5, labels=[0], seed=4)
    assert [image.getpixel((0, 0)) for image in images] == codes.flatten(1).sum(dim=1).tolist()


def test_classes_may_go_by_name(prior: Prior) -> None:
    tokenizer = GreyTokenizer("f" * 64)
    named, numbered = (
        [image.getpixel((0, 0)) for image in generate(prior, tokenizer, num_images=6, labels=labels, seed=4)]
        for labels in (["dog", "cat"], [1, 0])
    )
    assert named == numbered
    assert torch.equal(sample_codes(prior, labels="dog", seed=4), sample_codes(prior, labels=1, seed=4))
    with pytest.raises(ConfigurationError, match="^no class 'cow': choose one of cat, dog$"):
        generate(prior, tokenizer, labels="cow")


def test_generate_refuses_another_tokenizer(prior: Prior) -> None:
    with pytest.raises(MismatchError, match=r"ffffffffffff.*000000000000"):
        generate(prior, GreyTokenizer("0" * 64))
