"""The table of quantisation methods: what it says of a budgeted mix beside uniform choices."""

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def quantised(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import quantised

    return quantised


def row(method: str, megabytes: float, text: float, photo: float) -> dict[str, Any]:
    """Drops in points."""

    def metric(drop: float) -> dict[str, Any]:
        change = {"value": -drop / 100, "low": -drop / 100 - 0.01, "high": -drop / 100 + 0.01}
        share = {"value": 0.5, "low": 0.4, "high": 0.6}
        return {"change": change, "recall": share, "share": share, "same_first": {**share, "value": 1 - drop / 100}}

    return {
        "method": method, "bytes": int(megabytes * 2**20), "embed_bytes": 2**20, "finer": 3, "gps": metric(0.2),
        "metrics": {"text_to_tile": metric(text), "photo_to_tile": metric(photo)},
        "latency_ms": {"text": 1.0, "photo": 2.0}, "cosine": {"texts": 0.99, "photos": 0.98},
    }  # fmt: skip


ROWS = [row("int8", 16.0, 0.1, 0.0), row("int4", 12.0, 0.3, 0.2), row("int3", 9.0, 2.0, 1.0)]


@pytest.mark.parametrize(
    ("mix", "said"),
    [
        (row("m<1", 8.0, 0.4, 0.5), "no worse; the smallest that loses no more is int4, 1.50 times as large."),
        (row("m<1", 13.0, 0.4, 0.5), "loses 0.5 points at most: int4 smaller and no worse."),
        (row("m<1", 8.0, 0.0, -0.1), "loses 0.0 points at most: no method without a budget is smaller and no worse."),
        (row("m<1", 10.0, 0.1, 2.5), "loses 2.5 points at most: int3 smaller and no worse."),
    ],
)
def test_a_mix_is_held_against_every_uniform_choice(quantised: Any, mix: dict[str, Any], said: str) -> None:
    assert quantised.against_uniform(mix, [*ROWS, mix], real=True).endswith(said)


def test_every_row_of_the_table_has_every_column(quantised: Any) -> None:
    for size in ("pocket", "smolvlm-256m"):
        rows = [*ROWS, row("m<1", 8.0, 0.4, 0.5)]
        page = quantised.page({"size": size, "places": 5, "machine": {"cpu": "c", "cores": 2}, "rows": rows})
        table = [line for line in page.splitlines() if line.startswith("|")]
        assert len(table) == 2 + len(rows)
        assert len({line.count("|") for line in table}) == 1
        assert ("GPS" in table[0]) == (size == "pocket")


def test_methods_are_named_with_their_budget_and_picture_size(quantised: Any) -> None:
    file = str(ROOT / "export" / "pocket.cpu.int2-all.toml")
    seen = quantised.TokenBudget(256, 1)
    plain, mixed = quantised.chosen(f"int8,{file}<0.5", 300, True, seen)
    assert (plain.name, plain.budget, plain.recipe.image) == ("int8", None, seen)
    assert (mixed.name, mixed.recipe.name) == ("int2-all<0.5", "int2-all-256px-1tile-drop0.5")
    assert mixed.budget == quantised.Budget(0.5, 300, agreement=True)
