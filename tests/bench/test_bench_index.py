"""benchmarks/index_search.py in small: everybody finds neighbours, places hold, and a written gallery opens."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks"
for _name in ("faiss", "usearch", "numkong"):
    pytest.importorskip(_name)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import index_search

    for name, value in (("QUERIES", 16), ("BATCH", 8), ("SINGLES", 2), ("PROBES", (4, 64)), ("RADII", (500.0,))):
        monkeypatch.setattr(index_search, name, value)
    return index_search


def test_the_comparison_in_small(script: Any, tmp_path: Path) -> None:
    part = script.curves(tmp_path, 3000, 32, ["curves", "graphs", "places"])
    best: dict[str, float] = {}
    for row in [*part["curves"], *part["graphs"]]:
        best[row["who"]] = max(best.get(row["who"], 0.0), row["recall"])
        assert row["one_ms"] > 0
        assert row["qps"] > 0
    assert len(best) == 8
    assert min(best.values()) > 0.8
    (place,) = part["places"]
    assert place["within_recall"] == place["within_filled"] == 1.0  # few rows are compared as they are stored
    assert place["mask_recall"] == place["grown_filled"] == 1.0
    assert place["grown_recall"] > 0.9
    assert place["spare_recall"] >= place["grown_recall"]
    assert place["spare_searches"] >= place["grown_searches"] >= 1
    facts = script.opening(tmp_path, 2000)
    assert facts["rows"] == 2000
    assert facts["open_ms"] > 0
    document = {"date": "2000-01-01", "machine": {"cores": 1}, "versions": {}, "parts": {"32": part, "open": facts}}
    page = script.markdown(document)
    assert "| FAISS flat SQ8 | every row | 32 (25%) |" in page
    assert "float16 rows of 16 numbers" in page
    assert sum(line.startswith("| 500 | ") for line in page.splitlines()) == 1


def test_points_lie_on_the_sphere(script: Any) -> None:
    where = script.places(5000, 0)
    assert np.abs(where[:, 0]).max() <= 90
    assert np.abs(where[:, 1]).max() <= 180
