"""The places nearest to a code, against a search through all of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vqtok.evaluation.examples import BestPlaces, cut_patch, spread_codes


@settings(max_examples=60, deadline=None)
@given(
    pictures=st.integers(1, 30), size=st.integers(1, 6), wanted=st.integers(1, 5), batch=st.integers(1, 9),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_the_best_places_are_those_of_a_search(pictures: int, size: int, wanted: int, batch: int, seed: int) -> None:
    """Each in a picture of its own, whatever the batches; what has no code is passed over."""
    noise = np.random.default_rng(seed)
    codes = noise.integers(-1, size, (pictures, 2, 3))
    distortion = noise.permutation(codes.size).reshape(codes.shape).astype(np.float32)
    best = BestPlaces(wanted)
    for first in range(0, pictures, batch):
        best.add(codes[first : first + batch], distortion[first : first + batch], first=first)
    for code in range(size):
        nearest = []
        for picture in range(pictures):
            places = [p for p in range(6) if codes[picture].flat[p] == code]
            if places:
                place = min(places, key=lambda p: distortion[picture].flat[p])
                nearest.append((distortion[picture].flat[place], picture, place))
        assert best.of(code) == [(picture, place) for _, picture, place in sorted(nearest)[:wanted]]
    assert len(best.codes) <= size * wanted and best.of(-1) == []


def test_a_patch_is_the_place_and_those_around_it() -> None:
    picture = np.arange(36, dtype=np.uint8).reshape(1, 6, 6)
    middle = cut_patch(picture, (1, 1), 2)
    np.testing.assert_array_equal(middle[0], picture[0])
    assert (middle[1] == 255).all()
    corner = cut_patch(picture, (0, 2), 2)
    np.testing.assert_array_equal(corner[0, 2:, :4], picture[0, :4, 2:])
    assert (corner[1] > 0).tolist() == [[False] * 6] * 2 + [[True] * 4 + [False] * 2] * 4
    assert cut_patch(np.ones((3, 2, 2), dtype=np.uint8), (0, 0), 2).shape == (4, 6, 6)


def test_codes_are_spread_from_the_most_used_to_the_least_used() -> None:
    counts = np.array([0, 5, 9, 1, 0, 3, 7])
    assert spread_codes(counts, 3) == [2, 1, 3]
    assert spread_codes(counts, 99) == [2, 6, 1, 5, 3]
    assert spread_codes(np.zeros(4, dtype=int), 3) == []
