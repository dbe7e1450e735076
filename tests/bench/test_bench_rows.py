"""Rounds put together: percentiles, intervals, order, and which measurement counts."""

import pytest
from measured import line

from edgegeo.bench.rows import describe, merge, newest_rows
from edgegeo.errors import InputError


def test_rounds_are_pooled_and_their_intervals_joined() -> None:
    one = line(samples_ms=[9.0, 10.0, 11.0] * 4)
    two = line(number=1, samples_ms=[11.0, 12.0, 13.0] * 4, memory_mb={"peak": 95.0, "proportional": 40.0})
    row = merge([one, two])
    assert row["latency_ms"]["p50"] == 11.0
    assert row["latency_ms"]["p50_low"] <= 10.0
    assert row["latency_ms"]["p50_high"] >= 12.0
    assert (row["rounds"], row["repeats"]) == (2, 24)
    assert row["memory_mb"]["peak"] == 95.0
    assert row["throughput_per_s"] == pytest.approx(1000 / 11)
    alone = merge([one])
    assert alone["latency_ms"]["p50_high"] - alone["latency_ms"]["p50_low"] < 3


def test_batches_are_offline_and_count_by_the_item() -> None:
    row = merge([line(ms=80.0, batch=8)])
    assert (row["scenario"], row["item_ms"]) == ("Offline", 10.0)
    assert merge([line()])["scenario"] == "SingleStream"


def test_a_round_that_failed_is_not_the_cell() -> None:
    failed = {"error": "killed"}
    assert "error" not in merge([line(), line(number=1, **failed)])
    row = merge([line(**failed), line(number=1, **failed)])
    assert (row["error"], row["rounds"]) == ("killed", 0)


def test_energy_is_the_mean_of_the_rounds_that_counted() -> None:
    told = [{"joules_per_item": j, "watts": 10.0, "idle_watts": None, "meters": {"RAPL": j}} for j in (1.0, 3.0)]
    row = merge([line(energy=told[0]), line(number=1, energy=told[1]), line(number=2)])
    assert row["energy"] == {"joules_per_item": 2.0, "watts": 10.0, "idle_watts": None, "meters": {"RAPL": 2.0}}
    assert merge([line()])["energy"] == {"why": "not measured: no RAPL"}


def test_of_several_measurements_of_a_setting_the_newest_counts() -> None:
    old, new = line(ms=10.0, key="old"), line(ms=20.0, key="new")
    again = line(ms=30.0, key="new")  # the same round, tried again
    elsewhere = line(ms=5.0, key="else", machine={**old["machine"], "cpu": "other"})
    rows = newest_rows([old, new, again, elsewhere])
    assert sorted(row["latency_ms"]["p50"] for row in rows) == [5.0, 30.0]


@pytest.mark.parametrize("lacking", ["samples_ms", "label", "batch", "machine", "provider"])
def test_a_line_that_lacks_something_is_named(lacking: str) -> None:
    edited = {name: value for name, value in line(key="mine").items() if name != lacking}
    with pytest.raises(InputError, match=f"cell mine lacks '{lacking}'"):
        newest_rows([line(), edited])


def test_rows_stand_in_the_order_of_jobs_precisions_and_sizes() -> None:
    labels = ("int8 128px", "fp32", "int8 64px", "mine", "int4")
    rows = newest_rows([line(label, job) for job in ("generate", "embed_text") for label in labels])
    assert [row["job"] for row in rows[:5]] == ["embed_text"] * 5
    assert [row["label"] for row in rows[:5]] == ["fp32", "int8 64px", "int8 128px", "int4", "mine"]


def test_a_setting_in_words() -> None:
    assert describe(line()) == "int8 generate batch 1"
    told = line(job="locate", threads=2, rerank=5, candidates=3, provider="cuda", power_mode=1)
    assert describe(told) == "int8 locate 2 threads rerank 5 candidates 3 cuda power mode 1"
    assert describe(line(job="rerank", rerank=10)) == "int8 rerank depth 10"
    assert describe(line(job="search", dims=64)) == "int8 search batch 1 dims 64"
