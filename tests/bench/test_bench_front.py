"""The front and the axes."""

from typing import Any

import pytest

from edgegeo.bench.chart import log_ticks, render_chart, ticks
from edgegeo.bench.front import front


def row(ms: float, accuracy: float | None, **more: Any) -> dict[str, Any]:
    card = {} if accuracy is None else {"gps_within_750_km": {"value": accuracy, "low": accuracy, "high": accuracy}}
    return {"job": "generate", "item_ms": ms, "accuracy": card, **more}


def test_the_front_holds_what_nothing_beats() -> None:
    rows = [
        row(1, 0.2),
        row(2, 0.2),
        row(3, 0.5),
        row(4, 0.4),
        row(5, 0.6),
        row(0.1, 0.9, error="failed"),
        row(1, None),
    ]
    assert [r["item_ms"] for r in front(rows)] == [1, 3, 5]
    assert front([]) == []


def test_of_equal_rows_one_is_enough() -> None:
    rows = [row(1, 0.2), row(1, 0.2), row(1, 0.3)]
    assert front(rows) == [rows[2]]


@pytest.mark.parametrize(("low", "high"), [(0, 100), (28.5, 36.1), (0.0, 1.2), (99.1, 100.2)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 10
    assert low <= found[0] < found[-1] <= high


@pytest.mark.parametrize(("low", "high"), [(0.01, 1000), (1.1, 3.9), (20, 300)])
def test_log_ticks_are_inside(low: float, high: float) -> None:
    found = log_ticks(low, high)
    assert len(found) >= 3
    assert all(low <= tick <= high for tick in found)


def test_a_chart_without_anything_to_show_says_so() -> None:
    assert "<svg" not in render_chart([row(1, None)], [], "GPS", lambda name: "red")
