"""What an accuracy budget found, as `quantisation.json` and `quantisation.html` of the bundle."""

import json
import math
from typing import Any

from edgegeo.bundle import Bundle
from edgegeo.calibration.sensitivity import Effect
from edgegeo.evaluate import Scores, difference
from edgegeo.evaluate.card import plain
from edgegeo.export.budget import Change, Found, Trial
from edgegeo.export.budget_page import render_page
from edgegeo.measure import folder_bytes, machine
from edgegeo.schema import to_plain

JSON_NAME, PAGE_NAME = "quantisation.json", "quantisation.html"


def write_report(found: Found, made: Bundle, scores: tuple[Scores | None, Scores | None]) -> dict[str, Any]:
    """Write both files into a staged bundle and return what the first one says. scores: on test places, after and
    before."""
    document = describe(found, made, scores)
    text = json.dumps(document, indent=1, allow_nan=False)
    (made.path / JSON_NAME).write_text(text + "\n", encoding="utf-8")
    (made.path / PAGE_NAME).write_text(render_page(document), encoding="utf-8")
    return document


def describe(found: Found, made: Bundle, scores: tuple[Scores | None, Scores | None]) -> dict[str, Any]:
    """Plain data. Drops are in percentage points, negative for a gain; sizes in bytes of the whole bundle."""
    rest = folder_bytes(made.path) - found.chosen.matrix_bytes
    return {
        "bundle": made.manifest.name,
        "judged_by": found.judge,
        "judged_components": sorted({layer.partition(".")[0] for group in found.groups for layer in group.layers}),
        "max_drop_points": found.budget.max_drop,
        "asked_proven": found.budget.proven,
        "proven": found.proven,
        "recipe": to_plain(found.recipe),
        "kept": found.chosen.mix,
        "matrices": sum(len(group.layers) for group in found.groups),
        "confirmed": {"places": found.confirmed.places, "changes": [_change(one) for one in found.confirmed.changes]},
        "test": _test(scores),
        "curve": [_trial(one, found, rest) for one in found.trials],
        "sensitivity": _sensitivity(found),
        "machine": machine(),
    }


def _trial(one: Trial, found: Found, rest: int) -> dict[str, Any]:
    return {
        "name": one.name,
        "chosen": one is found.chosen,
        "kept": len(one.mix),
        "bytes": one.matrix_bytes + rest,
        "matrix_bytes": one.matrix_bytes,
        "places": one.places,
        "within": one.within(found.budget),
        "changes": [_change(change) for change in one.changes],
        "latency_ms": {job: {"p50": t.p50_ms, "p90": t.p90_ms} for job, t in found.latency.get(one.name, {}).items()},
        "threads": found.threads,
    }


def _change(one: Change) -> dict[str, Any]:
    drop = {"value": -100 * one.change.value, "low": -100 * one.change.high, "high": -100 * one.change.low}
    return {
        "metric": one.metric, "now": plain(one.after), "fp32": plain(one.before), "drop_points": drop,
        "only_now_right": one.won, "only_fp32_right": one.lost,
    }  # fmt: skip


def _test(scores: tuple[Scores | None, Scores | None]) -> dict[str, Any] | None:
    """The same on test places, which no choice looked at."""
    after, before = scores
    if after is None or before is None:
        return None
    changes = difference(after, before)
    named = [name for name in after.metrics if name in changes and name.endswith(("tile_recall_at_1", "within_750_km"))]
    return {
        "places": after.places,
        "changes": [
            {
                "metric": name, "now": plain(after.metrics[name]), "fp32": plain(before.metrics[name]),
                "drop_points": {
                    "value": -100 * changes[name].value, "low": -100 * changes[name].high,
                    "high": -100 * changes[name].low,
                },
            }
            for name in named if not name.startswith(("gps_guess", "gps_random"))
        ],
    }  # fmt: skip


def _sensitivity(found: Found) -> list[dict[str, Any]]:
    """Every group at the recipe's own precision, the worst first."""
    known: dict[str, list[Effect]] = {}
    for one in found.effects:
        known.setdefault(one.group, []).append(one)
    rows = []
    for group in found.groups:
        effects = known.get(group.name, [])
        if not effects:
            continue
        alone = found.worst.get(group.name)
        rows.append({
            "group": group.name,
            "layers": list(group.layers),
            "precision": effects[0].precision,
            "stored": found.chosen.mix.get(group.layers[0], effects[0].precision),
            "error": effects[0].error,
            "sqnr_db": effects[0].sqnr_db if math.isfinite(effects[0].sqnr_db) else None,
            "cosine": effects[0].cosine,
            "finer": {one.precision: {"error": one.error, "cosine": one.cosine} for one in effects[1:]},
            "bytes": group.sizes,
            "alone": None if alone is None else [_change(change) for change in alone],
        })  # fmt: skip
    return sorted(rows, key=lambda row: -float(row["error"]))
