"""The arithmetic for a billion tiles, against numbers worked by hand."""

from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks"
MEASURED = {
    "bytes_a_row": {"vectors": 768.0, "ids": 20.0, "positions": 16.0, "digests": 32.0, "thumbs": 4000.0},
    "dim": 192, "pictures_per_s": 100.0, "measured_on": "a day", "machine": {"cpu": "a processor", "cores": 2},
    "postgres": {"rows": 10, "dim": 576, "rows_per_s": 1000.0, "bytes_a_row": 9000.0, "index_bytes_a_row": 1500.0,
                 "qps": 50.0, "recall": 0.99},
}  # fmt: skip
GIVEN = {
    "tiles": 1_000_000_000,
    "encoding": {"gpu_times_core": 100, "workers_busy": 0.5, "days": 10},
    "node": {"cores": 32, "memory_gb": 100, "disk_tb": 10, "usable": 0.5, "replicas": 2},
    "price": {"core_hour": 0.05, "gpu_hour": 2.0, "node_hour": 1.0, "terabyte_month": 10.0},
    "search": {"rows": 1_000_000, "bits_bytes": 92, "qps": 700, "cores": 2, "lists": 2000, "probed": 64,
               "lists_a_root": 16},
}  # fmt: skip


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


def test_the_plan_of_one_model(scripts: None) -> None:
    from billion_tiles import plan

    found = plan(576, 1.0, MEASURED, GIVEN)
    assert (found["codes"], found["rescore"], found["beside"], found["thumbs"]) == (92, 1152, 68, 4000)
    assert found["memory_tb"] == pytest.approx(0.092)
    assert found["disk_tb"] == pytest.approx(5.22)
    assert found["core_hours"] == pytest.approx(1e9 / 0.5 / 3600)
    assert found["gpu_hours"] == pytest.approx(found["core_hours"] / 100)
    assert found["cores"] == pytest.approx(found["core_hours"] / 240)
    # Memory: 184 GB on 50 each; disk: 10.44 TB on 5 each: four nodes by memory, three by disk.
    assert (found["nodes"], found["rows_a_node"]) == (4, 5e8)
    # 32,000 rows scanned at 1 M; 64 of 16 sqrt(n) lists of n rows are 4 sqrt(n).
    node = 700 / 2 * 32 * 32_000 / (4 * 5e8**0.5)
    assert found["qps"] == pytest.approx(2 * node)
    assert found["month"] == pytest.approx(4 * 730 + 10.44 * 10)


def test_shorter_vectors_are_cheaper(scripts: None) -> None:
    from billion_tiles import plan

    short, long = (plan(dim, 1.0, MEASURED, GIVEN) for dim in (192, 2048))
    assert short["codes"] == pytest.approx(92 - 72 + 24)
    for what in ("memory_tb", "disk_tb", "nodes"):
        assert short[what] <= long[what]
    assert short["qps"] > long["qps"]


def test_the_page_marks_every_source(scripts: None) -> None:
    from billion_tiles import page

    text = page(MEASURED, GIVEN)
    for words in (
        "- search: rows = 1,000,000",
        "| packaged model, int8 | 192 |",
        "measured (real_size.md)",
        "9.0 TB",
        "278 hours",
    ):
        assert words in text
    assert "smolvlm-256m" in text
