"""Runs the cells of a sweep in random order, each in its own process, and keeps what was measured."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgegeo.bench.accuracy import Card, accuracy_card
from edgegeo.bench.budget import picture_facts
from edgegeo.bench.cells import Cell, SweepSettings, versions
from edgegeo.bench.inputs import read_inputs, write_inputs
from edgegeo.bench.ledger import Ledger, Row
from edgegeo.bundle import Bundle
from edgegeo.measure import machine
from edgegeo.progress import Progress, silent


@dataclass(frozen=True)
class Subject:
    """One bundle under test, and the name its rows carry."""

    precision: str
    bundle: Bundle


def run_sweep(
    subjects: Sequence[Subject], settings: SweepSettings, folder: Path, progress: Progress = silent
) -> list[Row]:
    """Measure every cell that `folder`/results.jsonl does not hold yet; return the rows of all cells of this sweep.

    Interrupt it and run it again: finished cells are skipped. A cell that fails gets a row with "error" and is tried
    again next time.
    """
    ledger = Ledger(folder / "results.jsonl")
    cells = expand(subjects, settings, folder)
    keys = {cell: cell.key() for cell in cells}
    todo = [cell for cell in cells if not ledger.finished(keys[cell])]
    if todo:
        write_inputs(folder / "inputs", max(settings.batches))
    cards: dict[str, Card] = {}
    seen: dict[str, Row] = {}
    by_print = {subject.bundle.fingerprint: subject.bundle for subject in subjects}
    for name in {cell.fingerprint for cell in todo}:
        cards[name] = accuracy_card(by_print[name], settings, folder, progress)
        seen[name] = picture_facts(by_print[name], read_inputs(folder / "inputs", 1)[1][0])
    for cell in todo:
        if cell.job == "search":
            _gallery_for(cell, by_print[cell.fingerprint], progress)
    # In random order a drift of the machine's speed falls on all settings alike.
    random.Random(settings.seed).shuffle(todo)
    for done, cell in enumerate(todo):
        progress("measuring cells", done, len(todo))
        facts = {**_facts(cell, by_print[cell.fingerprint]), "picture": seen[cell.fingerprint]}
        numbers = run_cell(cell, settings.timeout_s)
        ledger.append({"key": keys[cell], **facts, **numbers, "accuracy": cards[cell.fingerprint]})
        progress("measuring cells", done + 1, len(todo))
    return [ledger.rows[keys[cell]] for cell in cells]


def expand(subjects: Sequence[Subject], settings: SweepSettings, folder: Path) -> list[Cell]:
    """Every cell of the sweep, in reading order; jobs that a bundle does not offer are left out."""
    threads = settings.threads or (0,)
    return [
        Cell(
            bundle=str(subject.bundle.path.absolute()),
            fingerprint=subject.bundle.fingerprint,
            precision=subject.precision,
            job=job,
            batch=batch,
            threads=count,
            places=settings.places,
            warmup=settings.warmup,
            seconds=settings.seconds,
            min_repeats=settings.min_repeats,
            max_repeats=settings.max_repeats,
            inputs=str((folder / "inputs").absolute()),
            gallery=str((folder / "galleries" / f"{subject.bundle.fingerprint[:16]}-{settings.places}").absolute()),
        )
        for subject in subjects
        for job in settings.jobs
        if _offers(subject.bundle, job)
        for batch in settings.batches
        for count in threads
    ]


def run_cell(cell: Cell, timeout_s: float) -> dict[str, Any]:
    """Measure one cell in a fresh process; {"error": why} where it failed."""
    task = json.dumps({"cell": asdict(cell), "spawned": time.monotonic()})
    command = [sys.executable, "-m", "edgegeo.bench.worker"]
    try:
        # A KeyboardInterrupt here kills the worker before it travels on.
        done = subprocess.run(command, input=task, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return {"error": f"gave no result within {timeout_s:.0f} s"}
    if done.returncode < 0:
        return {"error": f"the process was killed by signal {-done.returncode} (out of memory?)"}
    try:
        numbers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return {"error": last[0][:500]}
    return numbers


def _offers(bundle: Bundle, job: str) -> bool:
    roles = bundle.manifest.roles
    return (roles.generate if job == "generate" else roles.embed) is not None


def _facts(cell: Cell, bundle: Bundle) -> Row:
    return {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "bundle": bundle.manifest.name,
        "fingerprint": bundle.fingerprint,
        "precision": cell.precision,
        "components": {name: part.precision for name, part in bundle.manifest.components.items()},
        "size_bytes": bundle.bytes,
        "provider": "cpu",
        "job": cell.job,
        "batch": cell.batch,
        "threads": cell.threads or "auto",
        "warmup": cell.warmup,
        "energy": "not measured",
        "machine": machine(),
        "versions": versions(),
    }


def _gallery_for(cell: Cell, bundle: Bundle, progress: Progress) -> None:
    from edgegeo.planet import Planet
    from edgegeo.runtime import Embedder, Gallery
    from edgegeo.runtime.sources import planet_places

    target = Path(cell.gallery)
    if not (target / "gallery.json").exists():
        Gallery.build(target, planet_places(Planet(), "test", cell.places), Embedder.open(bundle), progress=progress)
