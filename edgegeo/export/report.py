"""What an export tells at its end: size, parity, accuracy before and after, latency before and after."""

import math
from dataclasses import dataclass
from typing import Any

from edgegeo.bundle import Bundle
from edgegeo.evaluate.bootstrap import Metric
from edgegeo.evaluate.card import Scores, difference, plain
from edgegeo.export.costs import Costs
from edgegeo.export.parity import Stage
from edgegeo.measure import Latency


@dataclass(frozen=True)
class ReportRow:
    """One line of the table. `before` is the fp32 bundle of the same checkpoint; None where there is none."""

    section: str
    """"size", "parity", "accuracy", "latency", or of the export itself "time" and "memory"."""
    name: str
    value: float
    before: float | None
    unit: str
    """"MB", "cosine", "equal", "nats", "grey levels", "share", "km", "ms" or "s"."""
    low: float | None = None
    high: float | None = None
    """95 % interval of `value`; for parity the limit it was held to; for latency `high` is the 90th percentile."""
    change: Metric | None = None
    """Paired change from `before`, with its interval."""


@dataclass(frozen=True)
class ExportReport:
    """The finished bundle and how it compares with its source."""

    out: str
    name: str
    fingerprint: str
    bytes: int
    places: int
    seconds: float
    merge_differences: dict[str, float]
    """Role -> largest difference of the merged adapter from the attached one."""
    rows: tuple[ReportRow, ...]
    notes: tuple[str, ...] = ()
    """What no number says."""
    preview: dict[str, Any] | None = None
    """What was estimated before it started."""
    peak_mb: float = 0.0
    """Largest resident memory of the process during the export, files mapped into memory included (2**20 bytes)."""
    quantisation: dict[str, Any] | None = None
    """What is in quantisation.json, where an accuracy budget was given."""

    def to_dict(self) -> dict[str, Any]:
        """For --json; what is not finite (a median without answers) becomes None."""
        rows = [{k: _plain(v) for k, v in vars(row).items()} for row in self.rows]
        return {**vars(self), "rows": rows}


def _plain(value: Any) -> Any:
    if isinstance(value, Metric):
        return plain(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def size_rows(bundle: Bundle, before: Bundle | None) -> list[ReportRow]:
    """The bundle whole, then each component with its external data, then the rest."""
    rows = [ReportRow("size", "bundle", _mb(sum(_sizes(bundle).values())), _total(before), "MB")]
    for name, component in bundle.manifest.components.items():
        old = None if before is None else _mb(_component_bytes(before, before.manifest.components[name].file))
        size = _mb(_component_bytes(bundle, component.file))
        rows.append(ReportRow("size", f"{name} ({component.precision})", size, old, "MB"))
    return rows


def parity_rows(stages: tuple[Stage, ...], before: tuple[Stage, ...]) -> list[ReportRow]:
    """One row a stage, with its limit."""
    exact = {s.name: s.value for s in before}
    return [
        ReportRow(
            "parity", s.name, s.value, exact.get(s.name), s.measure,
            low=s.limit if s.floor else None,
            high=None if s.floor else s.limit,
        )
        for s in stages
    ]  # fmt: skip


SHOWN = (
    "text_to_tile_recall_at_1", "text_to_tile_recall_at_10", "photo_to_tile_recall_at_1", "photo_to_tile_recall_at_10",
    "gps_within_25_km", "gps_within_200_km", "gps_within_750_km", "gps_within_2500_km", "gps_median_km",
    "gps_guess_median_km", "rerank_text_recall_at_1", "rerank_photo_recall_at_1",
    "int8_text_to_tile_recall_at_1", "int8_photo_to_tile_recall_at_1",
    "binary_text_to_tile_recall_at_1", "binary_photo_to_tile_recall_at_1",
    "binary_rescored_text_to_tile_recall_at_1", "binary_rescored_photo_to_tile_recall_at_1",
)  # fmt: skip
"""Metrics of the table; the accuracy card in the manifest holds all."""


def accuracy_rows(after: Scores | None, before: Scores | None) -> list[ReportRow]:
    """One row a metric, with intervals, fp32, and the paired change; none without an evaluation."""
    if after is None:
        return []
    changes = difference(after, before) if before is not None else {}
    rows = []
    cut = [name for name in after.metrics if name.startswith("dims") and name.endswith("recall_at_1")]
    for name in (*SHOWN, *cut):
        if name not in after.metrics:
            continue
        metric = after.metrics[name]
        old = before.metrics[name].value if before is not None and name in before.metrics else None
        unit = "km" if name.endswith("_km") and "within" not in name else "share"
        rows.append(ReportRow("accuracy", name, metric.value, old, unit, metric.low, metric.high, changes.get(name)))
    return rows


def latency_rows(after: dict[str, Latency], before: dict[str, Latency]) -> list[ReportRow]:
    """Median milliseconds of each job."""
    rows = []
    for job, took in after.items():
        old = before[job].p50_ms if job in before else None
        rows.append(ReportRow("latency", job, took.p50_ms, old, "ms", high=took.p90_ms))
    return rows


def cost_rows(costs: Costs) -> list[ReportRow]:
    """Seconds and peak memory of each stage of the export."""
    rows = [ReportRow("time", cost.stage, cost.seconds, None, "s") for cost in costs.rows]
    return rows + [ReportRow("memory", cost.stage, cost.peak_mb, None, "MB") for cost in costs.rows]


def accuracy_card(after: Scores | None, before: Scores | None) -> dict[str, Any]:
    """The manifest's accuracy card: metric -> value, low, high, fp32, and the paired difference."""
    if after is None:
        return {}
    changes = difference(after, before) if before is not None else {}
    card: dict[str, Any] = {}
    for name, metric in after.metrics.items():
        card[name] = plain(metric)
        if before is not None and name in changes:
            card[name] |= {"fp32": plain(before.metrics[name])["value"], "difference": plain(changes[name])}
    return {"places": after.places, "split": after.split, "metrics": card}


def _component_bytes(bundle: Bundle, file: str) -> int:
    sizes = _sizes(bundle)
    return sizes.get(file, 0) + sizes.get(f"{file}_data", 0)


def _sizes(bundle: Bundle) -> dict[str, int]:
    return {name: entry.bytes for name, entry in bundle.manifest.files.items()}


def _total(bundle: Bundle | None) -> float | None:
    return None if bundle is None else _mb(sum(_sizes(bundle).values()))


def _mb(size: int) -> float:
    return size / 2**20
