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

Card = dict[str, dict[str, Any]]
"""Metric name -> {"value", "low", "high", "places"}: a share and its 95 % bootstrap interval."""


def accuracy_card(bundle: Bundle, settings: SweepSettings, folder: Path, progress: Progress = silent) -> Card:
    """Recall@1 and GPS@750 of the bundle on `settings.places` test places; kept in `folder`/accuracy for next time.

    Measured here rather than copied from the bundle, so that all rows of a sweep share places and machine.
    """
    facts = {"fingerprint": bundle.fingerprint, "places": settings.places, "split": "test", "versions": versions()}
    file = folder / "accuracy" / f"{bundle.manifest.name}-{bundle.fingerprint[:16]}-{settings.places}.json"
    if (kept := _read(file)) and {name: kept.get(name) for name in facts} == facts:
        known: Card = kept["metrics"]
        return known
    from edgegeo.evaluate import evaluate

    scores = evaluate(bundle, settings.places, tasks=("retrieval", "gps"), progress=progress)
    wanted = {name: scores.metrics[name] for name in METRIC_OF_JOB.values() if name in scores.metrics}
    card: Card = {name: {**vars(metric), "places": settings.places} for name, metric in wanted.items()}
    draft = file.with_name(file.name + ".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps({**facts, "metrics": card}, indent=1, allow_nan=False), encoding="utf-8")
        os.replace(draft, file)
    except OSError as error:
        raise InputError(f"{file} can't be written ({error.strerror or error}); choose another place with -o") from None
    return card


def _read(file: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None
