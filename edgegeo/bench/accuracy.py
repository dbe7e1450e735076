"""Accuracy beside the speed: every bundle is scored once, on the same unseen places, through the runtime."""

import json
import os
from pathlib import Path
from typing import Any

from edgegeo.bench.cells import SweepSettings, versions
from edgegeo.bench.front import METRIC_OF_JOB
from edgegeo.bundle import Bundle
from edgegeo.errors import InputError
from edgegeo.progress import Progress, silent

SPLIT = "test"
PARTS = ("value", "low", "high")
Card = dict[str, dict[str, Any]]
"""Metric name -> {"value", "low", "high", "places"}: a share and its 95 % bootstrap interval."""


def accuracy_card(bundle: Bundle, settings: SweepSettings, folder: Path, progress: Progress = silent) -> Card:
    """Recall@1 and GPS@750 of the bundle on `settings.places` test places.

    From the bundle's own accuracy card where that was made on the same places; else measured here and kept in
    `folder`/accuracy for next time.
    """
    own = bundle.manifest.accuracy
    if own.get("places") == settings.places and own.get("split") == SPLIT:
        return _card(own["metrics"], settings.places)
    facts = {"fingerprint": bundle.fingerprint, "places": settings.places, "split": SPLIT, "versions": versions()}
    file = folder / "accuracy" / f"{bundle.manifest.name}-{bundle.fingerprint[:16]}-{settings.places}.json"
    if (kept := _read(file)) and {name: kept.get(name) for name in facts} == facts:
        known: Card = kept["metrics"]
        return known
    from edgegeo.evaluate import evaluate

    scores = evaluate(bundle, settings.places, tasks=("retrieval", "gps"), split=SPLIT, progress=progress)
    card = _card({name: vars(metric) for name, metric in scores.metrics.items()}, settings.places)
    draft = file.with_name(file.name + ".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps({**facts, "metrics": card}, indent=1, allow_nan=False), encoding="utf-8")
        os.replace(draft, file)
    except OSError as error:
        raise InputError(f"{file} can't be written ({error.strerror or error}); choose another place with -o") from None
    return card


def _card(metrics: dict[str, dict[str, Any]], places: int) -> Card:
    """The metrics that rows carry, without the rest."""
    wanted = [name for name in dict.fromkeys(METRIC_OF_JOB.values()) if name in metrics]
    return {name: {**{part: metrics[name][part] for part in PARTS}, "places": places} for name in wanted}


def _read(file: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None
