"""Results as CSV: a line for each row, a column for each number and fact, for notebooks and spreadsheets."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from edgegeo.bench.front import metric_of
from edgegeo.bench.rows import Row

FIRST = (
    "label", "job", "batch", "threads", "provider", "dims", "rerank", "candidates", "power_mode", "precision", "method",
    "scenario", "item_ms", "throughput_per_s", "latency_ms.p50", "latency_ms.p50_low", "latency_ms.p50_high",
    "latency_ms.p90",
)  # fmt: skip
LEFT_OUT = ("recipe", "components", "hits")


def render_csv(rows: Sequence[Row]) -> str:
    """The most asked for columns first, then every other one by its name; nested ones as latency_ms.p50."""
    lines = [{**_flat(row), "metric": metric_of(row["job"], row["candidates"])} for row in rows]
    known = dict.fromkeys(name for line in lines for name in line)
    columns = [*FIRST, *sorted(name for name in known if name not in FIRST)]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _flat(facts: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in facts.items():
        if name in LEFT_OUT:
            continue
        if isinstance(value, Mapping):
            out |= _flat(value, f"{before}{name}.")
        else:
            out[before + name] = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else _safe(value)
    return out


def _safe(value: Any) -> Any:
    # A spreadsheet would run a text that begins so as a formula.
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value
