import itertools

import numpy as np
import pytest

from edgegeo.runtime.fusion import Linear
from edgegeo.runtime.weighing import Weighing, doubts, rank


def lists(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = np.sort(rng.uniform(0.2, 0.6, count))[::-1]
    if seed % 3 == 0:
        scores = np.round(scores, 1)  # many equal ones
    return scores, rng.normal(0, rng.choice([0.5, 3.0, 30.0]), count)


@pytest.mark.parametrize("weight", [0.05, 0.3, 2.0])
def test_stopping_early_gives_the_first_ones_of_the_full_run(weight: float) -> None:
    weighing = Weighing(0.03, weight, -4.0, 3.0)
    looked, possible = 0, 0
    for seed, count, step in itertools.product(range(20), (1, 7, 20), (1, 4)):
        scores, margins = lists(seed, count)
        full = np.argsort(-weighing.fused(scores, margins), kind="stable")
        for top in {1, min(5, count), count}:
            found = rank(scores, weighing, lambda places, m=margins: m[places], top, step)
            np.testing.assert_array_equal(found.order[:top], full[:top])
            assert sorted(found.order) == list(range(count))
            seen = ~np.isnan(found.margins)
            np.testing.assert_array_equal(found.margins[seen], margins[seen])
            looked += int(seen.sum())
            possible += count
    assert looked < possible  # it would be no use otherwise


def test_what_is_left_out_follows_by_what_is_known_of_it() -> None:
    # The first two are close, the others far below: nothing else needs a look, whatever is asked for.
    scores = np.array([0.500, 0.499, 0.3, 0.2])
    asked: list[list[int]] = []

    def look(places: object) -> np.ndarray:
        asked.append(list(places))  # type: ignore[call-overload]
        return np.array([-2.0, 2.0])[list(places)]  # type: ignore[call-overload]

    found = rank(scores, Weighing(0.03, 0.3, -4, 4), look)
    assert asked == [[0, 1]]
    assert found.order.tolist() == [1, 0, 2, 3]
    assert np.isnan(found.margins[2:]).all()


def test_a_weight_of_nothing_looks_at_nothing() -> None:
    def look(places: object) -> np.ndarray:
        raise AssertionError("nobody asked")

    scores = np.array([0.3, 0.3, 0.5])
    assert rank(scores, Weighing(weight=0.0), look).order.tolist() == [2, 0, 1]
    whole = rank(scores, Weighing(weight=0.0), lambda places: np.array(places) * 1.0, whole=True)
    assert (whole.order.tolist(), whole.margins.tolist()) == ([2, 0, 1], [0.0, 1.0, 2.0])


def test_a_model_that_answers_nan_ends_too() -> None:
    found = rank(np.array([0.5, 0.49]), Weighing(), lambda places: np.full(len(places), np.nan))
    assert sorted(found.order) == [0, 1]


def test_log_odds_are_cut() -> None:
    weighing = Weighing(0.5, 2.0, -1.0, 3.0)
    np.testing.assert_allclose(weighing.fused(np.array([0.5] * 3), np.array([-9.0, 1.0, 9.0])), [-1.0, 3.0, 7.0])


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.0}, {"weight": -0.1}, {"low": 1.0, "high": 0.0}, {"high": float("inf")}]
)
def test_impossible_weighings(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"weighing needs|must not be empty"):
        Weighing(**settings)


def test_doubts_of_a_first_tile() -> None:
    scores, margins = np.array([[0.5, 0.4], [0.6, 0.6]]), np.array([[2.0, 1.0], [np.nan, np.nan]])
    found = doubts(scores, margins, np.array([[9.0, 7.0], [3.0, 3.0]]))
    assert {name: column.tolist() for name, column in found.items()} == {
        "cosine": [0.5, 0.6], "margin": [2.0, 0.0], "gap": [2.0, 0.0],
    }  # fmt: skip
    line = Linear(("gap",), (1.0,), -1.0)
    assert (line(found) > 0).tolist() == [True, False]
