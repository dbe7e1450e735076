"""Histograms that widen, and the ranges each method makes of them."""

import numpy as np
import pytest

from edgegeo.calibration.histogram import BINS, Histogram
from edgegeo.calibration.ranges import all_ranges
from edgegeo.errors import InputError
from edgegeo.recipe import RANGES

NORMAL = np.random.default_rng(0).normal(0, 1, 100_000).astype(np.float32)


def seen(*batches: np.ndarray) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.add(np.asarray(batch, np.float32))
    return histogram


def quantised_error(values: np.ndarray, low: float, high: float) -> float:
    step = (high - low) / 255
    zero = round(-low / step)
    codes = np.clip(np.rint(values / step) + zero, 0, 255)
    return float((((codes - zero) * step - values) ** 2).mean())


def test_counts_do_not_depend_on_the_order_of_batches() -> None:
    small, large = NORMAL[:1000] * 0.01, NORMAL[1000:2000] * 50
    one, two = seen(small, large), seen(large, small)
    assert one.reach == two.reach > 100
    np.testing.assert_array_equal(one.counts, two.counts)
    assert one.counts.sum() == 2000
    assert (one.low, one.high) == (two.low, two.high) == (float(large.min()), float(large.max()))


def test_bins_hold_what_numpy_counts() -> None:
    histogram = seen(NORMAL[:5000])
    expected = np.histogram(NORMAL[:5000], BINS, (-histogram.reach, histogram.reach))[0]
    assert np.abs(histogram.counts - expected).sum() <= 4  # values on the border of two bins


def test_large_batches_are_thinned_but_their_extremes_kept() -> None:
    values = np.tile(NORMAL, 20)
    values[7] = 30.0
    histogram = seen(values)
    assert histogram.counts.sum() < len(values) / 4
    assert histogram.high == 30.0


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InputError, match="not finite"):
        seen(np.array([1.0, np.nan]))


def test_one_outlier_is_clipped_where_that_lowers_the_error() -> None:
    values = np.append(NORMAL, np.float32(9.0))
    ranges = all_ranges(seen(values))
    assert set(ranges) == set(RANGES)
    assert ranges["minmax"] == (pytest.approx(values.min()), 9.0)
    for method in ("mse", "percentile", "entropy"):
        assert ranges[method][1] < 8, method
    assert quantised_error(values, *ranges["mse"]) < 0.9 * quantised_error(values, *ranges["minmax"])
    assert ranges["percentile"] == pytest.approx(tuple(np.quantile(NORMAL, [0.5e-4, 1 - 0.5e-4])), abs=0.05)


def test_uniform_values_are_not_clipped() -> None:
    ranges = all_ranges(seen(np.linspace(-1, 1, 100_000)))
    assert ranges["mse"] == (-1.0, 1.0)
    assert ranges["entropy"] == pytest.approx((-1.0, 1.0), abs=0.05)


def test_ranges_contain_zero_and_nothing_seen_is_nothing() -> None:
    for low, high in all_ranges(seen(np.linspace(2, 3, 1000))).values():
        assert low == 0.0
        assert 2.5 < high <= 3.0
    assert set(all_ranges(seen(np.zeros(0))).values()) == {(0.0, 0.0)}
