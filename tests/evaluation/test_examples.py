"""The positions nearest to a code, against a search through all of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vqtok.evaluation.examples import BestPositions, cut_patch, spread_codes


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(1, 30), size=st.integers(1, 6), wanted=st.integers(1, 5), batch=st.integers(1, 9),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_the_best_positions_are_those_of_a_search(images: int, size: int, wanted: int, batch: int, seed: int) -> None:
    """Each in an image of its own, whatever the batches; what has no code is passed over."""
    noise = np.random.default_rng(seed)
    codes = noise.integers(-1, size, (images, 2, 3))
    distortion = noise.permutation(codes.size).reshape(codes.shape).astype(np.float32)
    best = BestPositions(wanted)
    for first in range(0, images, batch):
        rows = np.arange(images)[first : first + batch]
        best.add(codes[rows], distortion[rows], images=rows)
    for code in range(size):
        nearest = []
        for image in range(images):
            positions = [p for p in range(6) if codes[image].flat[p] == code]
            if positions:
                position = min(positions, key=lambda p: distortion[image].flat[p])
                nearest.append((distortion[image].flat[position], image, position))
        assert best.of(code) == [(image, position) for _, image, position in sorted(nearest)[:wanted]]
    assert len(best.codes) <= size * wanted and best.of(-1) == []


def test_a_patch_is_the_position_and_those_around_it() -> None:
    image = np.arange(36, dtype=np.uint8).reshape(1, 6, 6)
    middle = cut_patch(image, (1, 1), 2)
    np.testing.assert_array_equal(middle[0], image[0])
    assert (middle[1] == 255).all()
    corner = cut_patch(image, (0, 2), 2)
    np.testing.assert_array_equal(corner[0, 2:, :4], image[0, :4, 2:])
    assert (corner[1] > 0).tolist() == [[False] * 6] * 2 + [[True] * 4 + [False] * 2] * 4
    assert cut_patch(np.ones((3, 2, 2), dtype=np.uint8), (0, 0), 2).shape == (4, 6, 6)


def test_codes_are_spread_from_the_most_used_to_the_least_used() -> None:
    counts = np.array([0, 5, 9, 1, 0, 3, 7])
    assert spread_codes(counts, 3) == [2, 1, 3]
    assert spread_codes(counts, 99) == [2, 6, 1, 5, 3]
    assert spread_codes(np.zeros(4, dtype=int), 3) == []
