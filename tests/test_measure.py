"""Timing and memory."""

from pathlib import Path

import numpy as np
import pytest

from edgegeo.errors import InputError
from edgegeo.measure import (
    StoppingRule,
    folder_bytes,
    machine,
    peak_resident_mb,
    percentile,
    proportional_mb,
    quantile_interval,
    resident_mb,
    summarize,
    time_in_turn,
    time_until,
)


def test_percentiles_are_numpys() -> None:
    values = [3.0, 1.0, 2.0, 10.0, 7.5]
    for q in (0, 50, 90, 99, 100):
        assert percentile(values, q) == pytest.approx(float(np.percentile(values, q)))
    with pytest.raises(InputError):
        percentile([], 50)


def test_jobs_run_in_turn_after_their_warmup() -> None:
    calls: list[str] = []
    seconds = time_in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2, warmup=1)
    assert "".join(calls) == "ab" + "abab"
    assert {k: len(v) for k, v in seconds.items()} == {"a": 2, "b": 2}
    assert summarize(seconds["a"]).repeats == 2


def test_a_folder_is_as_large_as_all_files_in_it(tmp_path: Path) -> None:
    (tmp_path / "inner" / "empty").mkdir(parents=True)
    (tmp_path / "one").write_bytes(b"123")
    (tmp_path / "inner" / "two").write_bytes(b"4567")
    assert folder_bytes(tmp_path) == 7
    assert folder_bytes(tmp_path / "missing") == 0


def test_memory_and_machine_are_real() -> None:
    assert 0 < resident_mb() <= peak_resident_mb() + 1
    assert 0 < proportional_mb() <= peak_resident_mb() + 1
    assert machine()["cores"]


@pytest.mark.parametrize(("count", "alike"), [(12, 0.0), (100, 0.0), (100, 0.7)])
def test_an_interval_holds_the_median_as_often_as_it_says(count: int, alike: float) -> None:
    """Also where neighbours are alike, which makes the usual interval far too narrow."""
    chance = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        noise = chance.normal(size=count + 50)
        for i in range(1, len(noise)):
            noise[i] = alike * noise[i - 1] + (1 - alike**2) ** 0.5 * noise[i]
        low, high = quantile_interval([10 + one for one in noise[50:].tolist()], 50)
        held += low <= 10 <= high
    assert 0.92 <= held / 300 <= 1.0


def test_an_interval_narrows_with_more_values_and_widens_with_a_drift() -> None:
    steady = [10 + 0.1 * ((7 * i) % 11) for i in range(99)]

    def width(values: list[float]) -> float:
        low, high = quantile_interval(values, 50)
        return high - low

    assert width(steady) < width(steady[:11])
    assert width(sorted(steady)) > 2 * width(steady)
    assert quantile_interval([3.0], 90) == (3.0, 3.0)


def test_a_rule_stops_when_the_median_is_known_or_the_time_is_up() -> None:
    rule = StoppingRule(target=0.02, min_repeats=10, max_repeats=60, seconds=5.0)
    steady, wild = [0.010, 0.0101, 0.0099] * 20, [0.01, 0.02, 0.015] * 20
    assert rule.verdict(steady[:9]) == ""
    assert rule.verdict(steady[:10]) == "narrow"
    assert rule.verdict(wild[:10]) == rule.verdict(wild[:30]) == ""
    assert rule.verdict(wild) == "repeats"
    assert rule.verdict([0.5, 1.0] * 5) == "time"
    calls: list[int] = []
    seconds, verdict = time_until(lambda: calls.append(1), StoppingRule(0.9, 4, 8, 1.0))
    assert len(calls) == len(seconds)
    assert (len(seconds) in (4, 8), verdict in ("narrow", "repeats")) == (True, True)
    with pytest.raises(InputError, match="repeats must be 1 or more"):
        StoppingRule(min_repeats=0)
