from __future__ import annotations

import torch

from vqtok.priors.depth import DepthHead


def make_head() -> DepthHead:
    torch.manual_seed(0)
    head = DepthHead(channels=6, codebook_size=5, num_codebooks=3, num_layers=2, dropout=0.0)
    with torch.no_grad():
        head.position.copy_(torch.randn_like(head.position))
    return head


@torch.no_grad()
def test_logits_are_the_equation() -> None:
    """One position after another, with the sum over the codes before it written out."""
    head = make_head()
    features, codes = torch.randn(4, 6), torch.randint(5, (4, 3))
    for row in range(4):
        for q in range(3):
            hidden = features[row] + head.position[q]
            for before in range(q):
                hidden = hidden + head.embedding.weight[before * 5 + codes[row, before]]
            for layer in head.layers:
                hidden = hidden + layer.narrow(torch.relu(layer.wide(layer.norm(hidden))))
            torch.testing.assert_close(head(features, codes)[row, q], head.outputs[q](head.norm(hidden)))


@torch.no_grad()
def test_all_at_once_is_one_after_another() -> None:
    head = make_head()
    features, codes = torch.randn(4, 6), torch.randint(5, (4, 3))
    steps = [head.step(features, codes.unbind(dim=1)[:number]) for number in range(3)]
    torch.testing.assert_close(torch.stack(steps, dim=1), head(features, codes), rtol=1e-5, atol=1e-6)
