"""Ranks, average precision and distances, against hand-worked cases and brute force."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgegeo.evaluate.ranking import Task, average_precision, first_hit, rank
from edgegeo.geo import distance_km


def told(scores: list[float], right: list[int], score: Callable[..., float]) -> float:
    mask = np.zeros(len(scores), bool)
    mask[right] = True
    return score(np.array(scores, np.float32), mask)


def test_rank_of_the_first_hit() -> None:
    assert told([0.9, 0.5, 0.7], [0], first_hit) == 1
    assert told([0.9, 0.5, 0.7], [1], first_hit) == 3
    assert told([0.9, 0.5, 0.7, 0.1], [1, 2], first_hit) == 2  # any positive
    assert told([0.9, 0.5], [], first_hit) == np.inf


def test_ties_stand_before_the_hit() -> None:
    assert told([0.5, 0.5, 0.5, 0.1], [1], first_hit) == 3
    assert told([0.5, 0.5 - 5e-7, 0.4], [0], first_hit) == 2  # no more than float32 can tell apart
    assert told([0.5, 0.5 - 5e-6, 0.4], [0], first_hit) == 1
    assert told([0.5, 0.5, 0.5], [0, 1, 2], first_hit) == 1  # among hits there is nothing to tell apart
    assert told([0.5, -np.inf, 0.2], [1], first_hit) == np.inf  # a hit that could not be read


def test_average_precision_by_hand() -> None:
    """Hits at ranks 1, 3 and 5: a third of the recall each, times what precision is before and at the hit."""
    scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    expected = (1 + (2 / 3 + 1 / 2) / 2 + (3 / 5 + 2 / 4) / 2) / 3
    assert told(scores, [0, 2, 4], average_precision) == pytest.approx(expected)
    assert told(scores, [0], average_precision) == 1
    assert told(scores, [1], average_precision) == pytest.approx((1 / 2 + 0) / 2)
    assert told(scores, [], average_precision) == 0
    assert told([0.5] * 4, [0], average_precision) == pytest.approx(1 / 8)  # tied: the hit comes last
    assert told([0.9, -np.inf, 0.1], [0, 1], average_precision) == pytest.approx(1 / 2)  # one of two is never found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=30))
def test_average_precision_is_the_area_under_the_curve(items: list[tuple[int, bool]]) -> None:
    """Drawn point by point: precision over recall, a trapezium wherever recall rises."""
    line = sorted(items, key=lambda item: (-item[0], item[1]))  # of equals, what is no hit comes first
    total = sum(hit for _, hit in items)
    area, found, precision = 0.0, 0, 1.0
    for place, (_, hit) in enumerate(line, 1):
        found += hit
        if hit:
            area += (precision + found / place) / 2 / total
        precision = found / place
    right = [i for i, (_, hit) in enumerate(items) if hit]
    assert told([score / 12 for score, _ in items], right, average_precision) == pytest.approx(area)
    best = max((s for s, hit in items if hit), default=None)
    if best is not None:
        assert told([s / 12 for s, _ in items], right, first_hit) == 1 + sum(s >= best and not h for s, h in items)


def unit(rng: np.random.Generator, *shape: int) -> Any:
    rows = rng.normal(size=shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def every(count: int) -> Any:
    return np.ones(count, bool)


def test_a_gallery_of_equal_rows_finds_nothing() -> None:
    """A collapsed model must not look perfect because of how ties are broken; whatever the block, row or kernel."""
    same = np.repeat(unit(np.random.default_rng(0), 1, 97), 301, axis=0)
    task = Task(hits=lambda row: [row], pool=lambda row: None, precision=True)
    ranks = rank(same, same, (every(301), every(301)), task)
    assert (ranks.first == 301).all()
    assert ranks.precision.max() < 0.01


def test_the_nearest_hundred_against_brute_force() -> None:
    """CVG-Text's oracle gallery: everything done again query by query with loops and sorting."""
    rng = np.random.default_rng(1)
    count, near = 300, 100
    queries, gallery = unit(rng, count, 8), unit(rng, count, 8)
    places = rng.uniform((40.5, -74.2), (41.0, -73.7), (count, 2))

    def pool(row: int) -> Any:
        km = distance_km(places[:, 0], places[:, 1], *places[row])
        return np.argsort(km, kind="stable")[:near]

    task = Task(lambda row: [row], pool, places, places)
    ranks = rank(queries, gallery, (every(count), every(count)), task)
    for row in range(0, count, 17):
        away = sorted((float(distance_km(*places[row], *place)), i) for i, place in enumerate(places))
        ordered = sorted((i for _, i in away[:near]), key=lambda i: -float(queries[row] @ gallery[i]))
        assert ordered.index(row) + 1 == ranks.first[row]
        assert ranks.top[row] == ordered[0]
        assert ranks.km[row] == pytest.approx(distance_km(*places[row], *places[ordered[0]]))
    assert (ranks.ranked == near).all()
    whole = rank(queries, gallery, (every(count), every(count)), Task(lambda row: [row], lambda row: None))
    assert (whole.first >= ranks.first).all()
    assert whole.first.sum() > ranks.first.sum()  # the oracle gallery flatters
    assert np.isnan(whole.km).all()


def test_of_tied_first_items_the_farthest_counts() -> None:
    gallery = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    places = np.array([[0.0, 0.0], [0.0, 3.0], [0.0, 9.0]])
    task = Task(lambda row: [0], lambda row: None, places[:1], places)
    ranks = rank(gallery[:1], gallery, (every(1), every(3)), task)
    assert ranks.km[0] == pytest.approx(distance_km(0, 0, 0, 3))
    assert (ranks.top[0], ranks.first[0]) == (1, 2)


def test_what_could_not_be_read_misses() -> None:
    rows = np.eye(3, dtype=np.float32)
    task = Task(lambda row: [row], lambda row: None, precision=True)
    ranks = rank(rows, rows, (np.array([False, True, True]), np.array([True, True, False])), task)
    assert ranks.first.tolist() == [np.inf, 1, np.inf]
    assert ranks.precision.tolist() == [0, 1, 0]
    assert ranks.top[0] == -1
    assert ranks.hits.tolist() == [1, 1, 1]
