from __future__ import annotations

import torch

from tests.baselines.models import make


def test_samples_follow_their_class_after_a_little_training() -> None:
    """Images of one class are bright and of the other dark; the same latents then give either."""
    model = make("cvae").train()
    labels = torch.arange(8) % 2
    images = (labels.float() * 1.2 - 0.6).view(8, 1, 1, 1).expand(8, 1, 16, 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model(images, labels).loss.backward()
        optimizer.step()
    model.eval()
    dark, bright = (model.sample(6, torch.full((6,), label), seed=0) for label in (0, 1))
    assert bright.mean() - dark.mean() > 0.6
    assert model.bound(images, labels).total.sum() < model.bound(images, 1 - labels).total.sum()


def test_encoder_and_decoder_both_see_the_class() -> None:
    model = make("cvae")
    images, zeros = torch.zeros(2, 1, 16, 16), torch.zeros(2, dtype=torch.int64)
    assert not torch.equal(model.encode(images, zeros), model.encode(images, zeros + 1))
    latents = model.encode(images, zeros)
    assert not torch.equal(model.decode(latents, zeros), model.decode(latents, zeros + 1))
