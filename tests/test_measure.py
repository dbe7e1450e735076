"""Timing and memory."""

import numpy as np
import pytest

from edgegeo.errors import InputError
from edgegeo.measure import machine, peak_resident_mb, percentile, resident_mb, summarize, time_in_turn


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


def test_memory_and_machine_are_real() -> None:
    assert 0 < resident_mb() <= peak_resident_mb() + 1
    assert machine()["cores"]
