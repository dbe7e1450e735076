"""Intervals: right on cases with a known answer, the same every time."""

import numpy as np
import pytest

from edgegeo.errors import InputError
from edgegeo.evaluate.bootstrap import clustered, interval, matched, median, paired, paired_clustered


def test_interval_of_a_share_agrees_with_the_normal_approximation() -> None:
    outcomes = np.repeat([1.0, 0.0], [300, 700])
    metric = interval(outcomes)
    half = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert metric.value == pytest.approx(0.3)
    assert metric.low == pytest.approx(0.3 - half, abs=0.005)
    assert metric.high == pytest.approx(0.3 + half, abs=0.005)
    assert interval(outcomes) == metric


def test_paired_change_is_narrower_than_the_intervals_of_the_runs() -> None:
    rng = np.random.default_rng(0)
    before = (rng.random(1000) < 0.4).astype(float)
    after = before.copy()
    after[:10] = 1 - after[:10]
    change = paired(after, before)
    single = interval(before)
    assert change.high - change.low < (single.high - single.low) / 3
    assert paired(before, before).low == paired(before, before).high == 0.0


def test_missing_answers_are_infinite_and_do_not_become_nan() -> None:
    distances = np.array([10.0, 20.0, np.inf, np.inf, np.inf])
    metric = interval(distances, median)
    assert metric.value == np.inf
    assert metric.high == np.inf
    assert not np.isnan(metric.low)


def test_runs_over_different_places_are_refused() -> None:
    with pytest.raises(InputError, match="3 and 2 places"):
        paired(np.ones(3), np.ones(2))


def test_no_places() -> None:
    with pytest.raises(InputError, match="at least one place"):
        interval(np.empty(0))


def test_groups_of_one_are_the_plain_bootstrap() -> None:
    values = np.random.default_rng(1).random(200)
    one, plain = clustered(values, np.arange(200)), interval(values)
    assert (one.value, one.low, one.high) == pytest.approx((plain.value, plain.low, plain.high))
    change = paired_clustered(values, values[::-1], np.arange(200))
    assert change.low == pytest.approx(paired(values, values[::-1]).low)


def test_queries_that_fail_together_say_less() -> None:
    """Five equal captions of one image tell as much as one: the interval is that of 200 places, not of 1,000."""
    places = (np.random.default_rng(2).random(200) < 0.4).astype(float)
    queries, groups = np.repeat(places, 5), np.repeat(np.arange(200), 5)
    one, naive, right = clustered(queries, groups), interval(queries), interval(places)
    assert (one.low, one.high) == pytest.approx((right.low, right.high))
    assert one.high - one.low > 1.8 * (naive.high - naive.low)
    assert paired_clustered(queries, queries, groups).high == 0
    with pytest.raises(InputError, match="3 and 2 queries"):
        paired_clustered(np.ones(3), np.ones(2), np.arange(3))


def test_matched_pairs_keep_a_width_where_nothing_differs() -> None:
    few, many = matched(0, 0, 20), matched(0, 0, 1000)
    assert few.value == many.value == 0.0
    assert few.high == -few.low > 0.08
    assert 0.001 < many.high == -many.low < 0.003


def test_matched_pairs_are_near_the_bootstrap_where_many_differ() -> None:
    before = np.zeros(1000)
    before[:500] = 1
    after = before.copy()
    after[:60], after[500:530] = 0, 1
    ours, theirs = matched(30, 60, 1000), paired(after, before)
    assert ours.value == -0.03
    assert ours.value == pytest.approx(theirs.value)
    assert ours.low == pytest.approx(theirs.low, abs=0.003)
    assert ours.high == pytest.approx(theirs.high, abs=0.003)
    for wrong in ((0, 0, 0), (-1, 0, 5), (3, 3, 5)):
        with pytest.raises(InputError, match="no comparison over"):
            matched(*wrong)
