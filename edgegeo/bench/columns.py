"""The columns that tables of every format share: how a row is shown, and which columns say something."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgegeo.bench.front import score
from edgegeo.bench.rows import Row, joules


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    title: str
    text: Callable[[Row], str]
    left: bool = False
    """Whether it is set to the left: words rather than numbers."""
    value: Callable[[Row], float | None] | None = None
    """The number behind the text, for sorting."""


def settings_of(rows: Sequence[Row]) -> list[Column]:
    """The columns that say what was set; an axis that never left its usual place is left out."""
    found = [Column("setting", lambda row: str(row["label"]), left=True)]
    usual = {"provider": "cpu", "dims": 0, "rerank": 0, "candidates": 1, "power_mode": None}
    for name in ("batch", "threads", *usual):
        values = {row.get(name) for row in rows}
        if name == "batch" and all(row["job"] in ("rerank", "locate") for row in rows):
            continue
        if name in usual and values <= {usual[name]}:
            continue
        found.append(Column(name.replace("_", " "), _setting(name)))
    return found


def numbers_of(rows: Sequence[Row]) -> list[Column]:
    """The columns of what was measured; energy and device memory only where some row has them."""
    found = [
        _number("p50 ms", lambda row: row["latency_ms"]["p50"], 2),
        Column("95 % interval", _spread),
        _number("p90 ms", lambda row: row["latency_ms"]["p90"], 2),
        _number("items/s", lambda row: row["throughput_per_s"], 1),
        Column("accuracy % [95 %]", share, value=lambda row: (score(row) or {}).get("value")),
    ]
    if any(row.get("against_fp32") for row in rows):
        found.append(Column("against fp32, points", _change))
    found.append(_number("peak MB", lambda row: row["memory_mb"]["peak"], 0))
    if any("device" in row.get("memory_mb", {}) for row in rows):
        found.append(_number("device MB", lambda row: row["memory_mb"].get("device"), 0))
    if any(joules(row) is not None for row in rows):
        found.append(_number("J/item", joules, 4))
    found += [
        _number("PSS MB", lambda row: row["memory_mb"]["proportional"], 0),
        _number("ms/item", lambda row: row["item_ms"], 2),
        _number("p99 ms", lambda row: row["latency_ms"]["p99"], 2),
        _number("cold start ms", lambda row: row["cold_start_ms"], 0),
        _number("size MB", lambda row: row["size_bytes"] / 2**20, 1),
    ]
    return found


def stages_of(rows: Sequence[Row]) -> list[Column]:
    """Columns of the time each stage takes of a call, milliseconds."""
    from edgegeo.bench.stages import STAGES

    there = [stage for stage in STAGES if any(stage in row.get("stages_ms", {}) for row in rows)]
    return [_number(stage, _stage(stage), 2) for stage in there]


def share(row: Row, metric: str | None = None) -> str:
    """The accuracy of a row's job (or the metric named) in percent with its interval; "-" where not measured."""
    found = score(row, metric)
    if found is None:
        return "-"
    return f"{100 * found['value']:.1f} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"


def with_changes(rows: Sequence[Row]) -> list[Row]:
    """Rows with "against_fp32": the paired change of accuracy against the fp32 row of the same job and axes."""
    from edgegeo.bench.changes import accuracy_change

    exact = {_apart_from_label(row): row for row in rows if _is_exact(row)}
    out = []
    for row in rows:
        reference = exact.get(_apart_from_label(row))
        told = reference is not None and reference is not row and "error" not in row
        change = accuracy_change(reference, row) if told and reference is not None else None
        out.append({**row, "against_fp32": change} if change else dict(row))
    return out


def _is_exact(row: Row) -> bool:
    return row["precision"] == "fp32" and "error" not in row


def _apart_from_label(row: Row) -> tuple[object, ...]:
    names = ("job", "batch", "threads", "provider", "dims", "rerank", "candidates", "power_mode", "method")
    seen = row.get("picture", {})
    return (*(row.get(name) for name in names), *(seen.get(name) for name in ("tokens", "tiles", "width", "height")))


def _setting(name: str) -> Callable[[Row], str]:
    return lambda row: {None: "-", 0: "all" if name == "dims" else "0"}.get(row.get(name), str(row.get(name)))


def _stage(stage: str) -> Callable[[Row], float | None]:
    return lambda row: row.get("stages_ms", {}).get(stage)


def _number(title: str, value: Callable[[Row], float | None], digits: int) -> Column:
    def text(row: Row) -> str:
        found = value(row)
        return "-" if found is None else f"{found:.{digits}f}"

    return Column(title, text, value=value)


def _spread(row: Row) -> str:
    low, high = row["latency_ms"]["p50_low"], row["latency_ms"]["p50_high"]
    return f"{low:.2f} to {high:.2f}"


def _change(row: Row) -> str:
    found = row.get("against_fp32")
    if not found:
        return "-"
    return f"{100 * found['value']:+.1f} [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}]"
