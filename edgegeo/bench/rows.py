"""Rows: a cell's rounds put together, with the intervals that make two rows comparable."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from edgegeo.bench.ledger import Line
from edgegeo.errors import InputError
from edgegeo.measure import percentile, quantile_interval

Row = dict[str, Any]
SINGLE, OFFLINE = "SingleStream", "Offline"
"""MLPerf Inference's names. SingleStream: one item at a time, its p90 counts. Offline: all items at hand, in batches,
items a second count. Unlike MLPerf: no LoadGen, JPEG decoding is in the time, a round ends by its interval rather than
after a minute, a few inputs are gone through again and again, nothing is submitted or audited."""
MEASURED = ("samples_ms", "stopped", "load_ms", "cold_start_ms", "memory_mb", "energy", "stages_ms", "temperature_c",
            "load_average", "round", "error")  # fmt: skip
SETTING = ("label", "job", "batch", "threads", "provider", "dims", "rerank", "candidates", "power_mode", "places")
"""What a person calls the cell: the same in another run, of other code or on another machine."""


def setting(row: Row) -> tuple[Any, ...]:
    """Identifies what was set, whatever came out."""
    return tuple(row.get(name) for name in SETTING)


def describe(row: Row) -> str:
    """The setting in short words: "int8 embed_text batch 8"."""
    words = [row["label"], row["job"]]
    if row["job"] not in ("rerank", "locate"):
        words.append(f"batch {row['batch']}")
    words += [f"{row[name]} {name}" for name in ("threads",) if row[name] != "auto"]
    words += [f"dims {row['dims']}"] if row.get("dims") else []
    words += [f"{'depth' if row['job'] == 'rerank' else 'rerank'} {row['rerank']}"] if row.get("rerank") else []
    words += [f"candidates {row['candidates']}"] if row.get("candidates", 1) > 1 else []
    words += [row["provider"]] if row["provider"] != "cpu" else []
    words += [f"power mode {row['power_mode']}"] if row.get("power_mode") is not None else []
    return " ".join(map(str, words))


def newest_rows(lines: Sequence[Line]) -> list[Row]:
    """A row for every setting in a results file; of several measurements of one on one machine the newest counts.

    InputError for lines that lack something: written by another version, or edited.
    """
    cells: dict[str, list[Line]] = {}
    for line in lines:
        cells.setdefault(line["key"], []).append(line)
    newest: dict[tuple[Any, ...], Row] = {}
    for key, rounds in cells.items():
        try:
            # A round that was tried again: the later line counts.
            row = merge(list({line["round"]: line for line in rounds}.values()))
            newest.pop(place := (*setting(row), row["machine"].get("cpu"), row["machine"].get("cores")), None)
            describe(row)
        except KeyError as error:
            raise InputError(
                f"the results' cell {key:.40} lacks {error}: take its lines out, or measure it again with this version"
            ) from None
        newest[place] = row
    return in_order(newest.values())


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Rows by job, then in the order the models came, then by their settings."""
    from edgegeo.bench.definition import JOBS

    given = list(rows)
    labels = sorted({row["label"] for row in given}, key=_label_order)
    return sorted(given, key=lambda row: (
        list(JOBS).index(row["job"]), labels.index(row["label"]), row["batch"], str(row["threads"]).zfill(4),
        row["dims"], row["rerank"], row["candidates"], row["provider"],
    ))  # fmt: skip


def _label_order(label: str) -> tuple[int, list[tuple[int, str]]]:
    from edgegeo.recipe import PRECISIONS

    words = label.split()
    known = PRECISIONS.index(words[0]) if words and words[0] in PRECISIONS else len(PRECISIONS)
    # Numbers by their size, "64px" before "128px".
    digits = ["".join(c for c in word if c.isdigit()) for word in words[1:]]
    return known, [(int(number or 0), word) for number, word in zip(digits, words[1:], strict=True)]


def merge(rounds: Sequence[Line]) -> Row:
    """One row of a cell's rounds; of a cell of which every round failed, a row with "error".

    Percentiles are those of all samples together. Intervals reach from the lowest end to the highest one that any
    round by itself gave: what differs from process to process is noise too.
    """
    good = [line for line in rounds if "error" not in line]
    facts = {name: value for name, value in (good or rounds)[-1].items() if name not in MEASURED}
    if not good:
        return {**facts, "rounds": 0, "error": rounds[-1]["error"]}
    samples = [line["samples_ms"] for line in good]
    pooled = [ms for part in samples for ms in part]
    latency: dict[str, float] = {f"p{q}": percentile(pooled, q) for q in (50, 90, 95, 99)}
    latency["mean"] = statistics.fmean(pooled)
    for q in (50, 90):
        ends = [quantile_interval(part, q) for part in samples]
        latency[f"p{q}_low"], latency[f"p{q}_high"] = min(low for low, _ in ends), max(high for _, high in ends)
    items = facts["batch"]
    return {
        **facts,
        "scenario": SINGLE if items == 1 else OFFLINE,
        "rounds": len(good),
        "repeats": len(pooled),
        "stopped": [line["stopped"] for line in good],
        "latency_ms": latency,
        "item_ms": latency["p50"] / items,
        "throughput_per_s": 1e3 * items / latency["mean"],
        "load_ms": statistics.median(line["load_ms"] for line in good),
        "cold_start_ms": statistics.median(line["cold_start_ms"] for line in good),
        "memory_mb": _each(max, [line["memory_mb"] for line in good]),
        "stages_ms": _each(statistics.fmean, [line["stages_ms"] for line in good]),
        "energy": _energy([line["energy"] for line in good]),
        "temperature_c": max((line["temperature_c"] for line in good if line["temperature_c"]), default=None),
        "load_average": max((line["load_average"] for line in good if line["load_average"]), default=None),
    }


def joules(row: Row) -> float | None:
    """Energy an item took; None where it was not measured."""
    found = row.get("energy", {}).get("joules_per_item")
    return None if found is None else float(found)


def _each(how: Any, parts: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: how([part[name] for part in parts if name in part]) for name in parts[0]}


def _energy(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    counted = [part for part in parts if "joules_per_item" in part]
    if not counted:
        return parts[0]
    whole = ("joules_per_item", "watts", "idle_watts")
    out: dict[str, Any] = {}
    for name in whole:
        known = [part[name] for part in counted if part[name] is not None]
        out[name] = statistics.fmean(known) if known else None
    return {**out, "meters": _each(statistics.fmean, [part["meters"] for part in counted])}
