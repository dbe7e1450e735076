"""The front: what nothing beats at both."""

from typing import Any

from edgegeo.bench.front import front, metric_of


def row(ms: float, accuracy: float | None, **more: Any) -> dict[str, Any]:
    card = {} if accuracy is None else {"gps_within_750_km": {"value": accuracy, "low": accuracy, "high": accuracy}}
    return {"job": "generate", "item_ms": ms, "accuracy": card, "memory_mb": {"peak": 100 - ms}, **more}


def test_the_front_holds_what_nothing_beats() -> None:
    rows = [
        row(1, 0.2), row(2, 0.2), row(3, 0.5), row(4, 0.4), row(5, 0.6), row(0.1, 0.9, error="failed"), row(1, None),
    ]  # fmt: skip
    assert [r["item_ms"] for r in front(rows)] == [1, 3, 5]
    assert front([]) == []


def test_of_equal_rows_one_is_enough() -> None:
    rows = [row(1, 0.2), row(1, 0.2), row(1, 0.3)]
    assert front(rows) == [rows[2]]


def test_other_costs_have_other_fronts() -> None:
    rows = [row(1, 0.2), row(3, 0.5), row(5, 0.4)]
    assert [r["item_ms"] for r in front(rows, "memory")] == [5, 3]
    assert front(rows, "energy") == []


def test_candidates_have_a_metric_of_their_own() -> None:
    assert metric_of("generate") != metric_of("generate", 4)
    fused = row(1, None, candidates=4)
    fused["accuracy"] = {"fused_gps_within_750_km": {"value": 0.7, "low": 0.6, "high": 0.8}}
    assert front([fused, row(1, 0.3)]) == [fused]
