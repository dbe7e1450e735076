import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgegeo.errors import InputError
from edgegeo.geo import Position
from edgegeo.runtime import sphere
from edgegeo.runtime.fusion import RULES, Clues, Fusing, Linear, Prior, believed, centre, with_prior

SMOOTH = ("mean", "median", "trimmed", "medoid", "mode", "cluster", "shift")


def clues(places: list[tuple[float, float]], logprobs: list[float] | None = None) -> Clues:
    likely = logprobs or [0.0] * len(places)
    return Clues(np.array([places], float), np.array([likely]), np.zeros((1, 0, 2)), np.zeros((1, 0)))


def fused(rule: str, places: list[tuple[float, float]], weights: list[float] | None = None) -> tuple[float, float]:
    points = sphere.vectors(places)
    lat, lon = sphere.places(centre(rule, points, np.array(weights or [1.0] * len(places)), 600.0))
    return float(lat), float(lon)


@pytest.mark.parametrize("rule", RULES)
def test_one_candidate_is_the_answer(rule: str) -> None:
    assert fused(rule, [(12.3, -45.6)]) == (pytest.approx(12.3), pytest.approx(-45.6))


@pytest.mark.parametrize("rule", ["mean", "median", "shift"])
def test_the_antimeridian_is_no_seam(rule: str) -> None:
    lat, lon = fused(rule, [(0.0, 179.0), (0.0, -179.0), (1.0, 180.0), (-1.0, 180.0)])
    assert abs(lat) < 1e-6
    assert abs(lon) == pytest.approx(180.0, abs=1e-6)


@pytest.mark.parametrize("rule", ["mean", "median", "shift"])
@pytest.mark.parametrize("pole", [90.0, -90.0])
def test_the_pole_is_a_point_like_any_other(rule: str, pole: float) -> None:
    around = [(pole - np.sign(pole) * 2, lon) for lon in (0.0, 90.0, 180.0, -90.0)]
    assert fused(rule, around)[0] == pytest.approx(pole, abs=1e-4)


def test_one_outlier_moves_the_mean_and_not_the_median() -> None:
    places = [(0.0, 0.0), (0.1, 0.0), (0.0, 0.1), (-0.1, 0.0), (0.0, -0.1), (50.0, 100.0)]
    km = {rule: float(sphere.between_km(sphere.vectors(fused(rule, places)), sphere.vectors((0, 0)))) for rule in RULES}
    assert km["mean"] > 1000
    for rule in ("median", "trimmed", "medoid", "mode", "shift", "cluster"):
        assert km[rule] < 15, rule


@pytest.mark.parametrize("rule", ["mode", "shift", "cluster", "medoid", "median"])
def test_of_two_clusters_the_heavier_one_wins(rule: str) -> None:
    places = [(10.0, 10.0), (10.5, 10.0), (10.0, 10.5), (-40.0, 120.0), (-40.5, 120.0)]
    assert fused(rule, places)[0] > 9
    heavier = [1.0, 1.0, 1.0, 5.0, 5.0]
    assert fused(rule, places, heavier)[0] < -39


def test_antipodes_have_no_mean_but_an_answer() -> None:
    assert fused("mean", [(0.0, 0.0), (0.0, 180.0)]) in [(0.0, 0.0), (0.0, 180.0), (0.0, -180.0)]


spots = st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.1, 3)), min_size=3, max_size=8)


@settings(max_examples=25, deadline=None)
@given(spots, st.integers(0, 2**31 - 1), st.sampled_from(["mean", "median", "shift"]))
def test_rotation_turns_the_answer_with_it(drawn: list[tuple[float, float, float]], seed: int, rule: str) -> None:
    points = sphere.vectors([(20 * a, 20 * b) for a, b, _ in drawn])
    weights = np.array([w for *_, w in drawn])
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    turn = turn * np.sign(np.linalg.det(turn))
    here, there = centre(rule, points, weights, 2000.0), centre(rule, points @ turn.T, weights, 2000.0)
    if rule == "shift":  # rounding may begin at another of two points that are equally dense
        near = np.exp(-0.5 * (sphere.table_km(points, points) / 2000.0) ** 2) @ weights
        if np.sort(near)[-1] - np.sort(near)[-2] < 1e-6:
            return
    # A median of points on one line is flat: a metre along it costs nothing.
    assert sphere.between_km(here @ turn.T, there) < 1.0


@settings(max_examples=25, deadline=None)
@given(spots, st.randoms(use_true_random=False), st.sampled_from(["mean", "median", "trimmed"]))
def test_the_order_of_candidates_means_nothing(drawn: list, order: object, rule: str) -> None:
    mixed = list(drawn)
    order.shuffle(mixed)  # type: ignore[attr-defined]
    one, two = (
        centre(rule, sphere.vectors([(20 * a, 20 * b) for a, b, _ in some]), np.array([w for *_, w in some]), 600.0)
        for some in (drawn, mixed)
    )
    far = sphere.between_km(sphere.vectors([(20 * a, 20 * b) for a, b, _ in drawn]), one[None])
    if rule == "trimmed" and np.diff(np.sort(far)).min() < 1.0:
        return  # which of two equally far points is dropped is left to the order
    assert sphere.between_km(one, two) < 1.0


@pytest.mark.parametrize("rule", SMOOTH)
def test_a_weight_of_two_is_the_candidate_twice(rule: str) -> None:
    places = [(0.0, 0.0), (3.0, 1.0), (1.0, 4.0)]
    twice = fused(rule, [*places, places[0]])
    assert fused(rule, places, [2.0, 1.0, 1.0]) == (
        pytest.approx(twice[0], abs=1e-4),
        pytest.approx(twice[1], abs=1e-4),
    )


def test_candidates_that_are_no_position_weigh_nothing() -> None:
    some = clues([(10.0, 10.0), (np.nan, np.nan), (12.0, 10.0)], [-1.0, 0.0, -1.0])
    for weights in ("even", "likelihood", "agreement"):
        assert believed(some, Fusing("mean", weights))[0].tolist() == pytest.approx([0.5, 0.0, 0.5])
    assert not believed(clues([(np.nan, np.nan)]), Fusing()).any()


def test_likelihood_leans_on_the_likely() -> None:
    weights = believed(clues([(0, 0), (1, 1)], [-1.0, -3.0]), Fusing("mean", "likelihood", temperature=2.0))[0]
    assert weights[0] / weights[1] == pytest.approx(np.e)


def test_tiles_speak_for_their_surroundings() -> None:
    tiles = Clues(np.array([[(0.0, 0.0), (40.0, 40.0)]]), np.zeros((1, 2)), np.array([[(39.0, 41.0)]]), np.ones((1, 1)))
    weights = believed(tiles, Fusing("mean"), tiles=True)[0]
    assert weights[1] > 0.99


def test_a_wide_prior_chooses_and_a_narrow_one_decides() -> None:
    points, weights = sphere.vectors([(0.0, 0.0), (0.0, 40.0)]), np.array([0.5, 0.5])
    moved, chosen, pull = with_prior(points, weights, Prior(Position(0.0, 38.0), 2500.0), 500.0)
    assert chosen[1] > 0.9
    assert pull < 0.2
    moved, _, pull = with_prior(points, weights, Prior(Position(10.0, 38.0), 5.0), 500.0)
    assert pull > 0.99
    assert sphere.between_km(moved[1], sphere.vectors((10.0, 38.0))) < 20
    # Too far away for any candidate: the weights stay finite, and the nearest is left.
    _, chosen, _ = with_prior(points, weights, Prior(Position(0.0, -170.0), 1.0), 1.0)
    assert chosen.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("text", ["", "1,2", "1,2,3,4", "a,b,c", "91,0,10", "0,181,10", "0,0,0", "0,0,-5", "0,0,nan"])
def test_priors_that_mean_nothing(text: str) -> None:
    with pytest.raises(InputError):
        Prior.parse(text)


def test_prior_in_words() -> None:
    assert Prior.parse(" 48.1, -11.5,50") == Prior(Position(48.1, -11.5), 50.0)


@pytest.mark.parametrize(
    "wrong",
    [{"rule": "vote"}, {"weights": "luck"}, {"weights": "scorer"}, {"bandwidth_km": 0.0}, {"temperature": -1.0}],
)
def test_ways_that_do_not_exist(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"fusion|scorer|above 0"):
        Fusing(**wrong)


def test_linear_models_fit_their_features() -> None:
    assert Linear(("a",), (2.0,), 1.0)({"a": np.array([0.0, 3.0])}).tolist() == [1.0, 7.0]
    with pytest.raises(ValueError, match="features"):
        Linear(("a",), (), 0.0)
    with pytest.raises(ValueError, match="finite"):
        Linear(("a",), (float("nan"),), 0.0)
