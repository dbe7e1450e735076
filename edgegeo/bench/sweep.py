"""Runs the cells of a sweep in random order, each round in its own process, and keeps what was measured."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgegeo.bench.accuracy import Card, Scorer
from edgegeo.bench.budget import picture_facts
from edgegeo.bench.cells import AS_IS, Cell, Subject, expand
from edgegeo.bench.definition import Measuring, Sweep
from edgegeo.bench.inputs import read_inputs, write_inputs
from edgegeo.bench.ledger import NAME, Ledger, Line
from edgegeo.bench.machine import describe_machine, temperature_c, versions
from edgegeo.bench.method import method_of
from edgegeo.bench.power import check_modes, modes_restored, set_mode
from edgegeo.bench.rows import Row, merge
from edgegeo.bundle import Bundle
from edgegeo.progress import Progress, silent
from edgegeo.runtime.sessions import default_threads, suited_threads

_COOL_C = 3.0
_LOOK_S = 1.0


def run_sweep(subjects: Sequence[Subject], sweep: Sweep, folder: Path, progress: Progress = silent) -> list[Row]:
    """Measure every round that `folder`/results.jsonl does not hold yet; return the rows of all cells of this sweep.

    Interrupt it and run it again: finished rounds are skipped. A round that fails gets a line with "error" and is
    tried again next time. DeviceError before anything is measured for a provider or power mode that is not there.
    """
    cells = expand(subjects, sweep, folder)
    _check_devices(subjects, sweep)
    ledger = Ledger(folder / NAME)
    keys = {cell: cell.key() for cell in cells}
    rounds = sweep.measure.rounds
    todo = [(n, cell) for n in range(rounds) for cell in cells if not ledger.finished(keys[cell], n)]
    if todo:
        by_print = {subject.bundle.fingerprint: subject for subject in subjects}
        write_inputs(folder / "inputs", max(cell.count for cell in cells))
        known = _known({cell for _, cell in todo}, by_print, folder, sweep, progress)
        steps = list(_shuffled(todo, sweep.measure.seed))
        start_c, here = temperature_c(), describe_machine()
        with modes_restored(sweep.cells.power_mode):
            for done, (number, cell) in enumerate(steps):
                progress("measuring cells", done, len(steps))
                if cell.power_mode != AS_IS:
                    set_mode(cell.power_mode)
                    here = describe_machine()
                _cool_down(sweep.measure, start_c)
                facts = _facts(cell, by_print[cell.fingerprint], sweep)
                numbers = run_cell(cell, sweep.measure.timeout_s)
                ledger.append({"key": keys[cell], "round": number, **facts, "machine": here, **known[cell], **numbers})
                progress("measuring cells", done + 1, len(steps))
    return [merge(ledger.rounds(keys[cell], rounds)) for cell in cells]


def run_cell(cell: Cell, timeout_s: float) -> dict[str, Any]:
    """Measure one round of a cell in a fresh process; {"error": why} where it failed."""
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


def _check_devices(subjects: Sequence[Subject], sweep: Sweep) -> None:
    """A device that is not there is an error now, not a failed cell in an hour."""
    from edgegeo.runtime import Model

    check_modes(sweep.cells.power_mode)
    for subject in subjects:
        for provider in sweep.cells.provider:
            Model(subject.bundle, provider=provider)


def _known(
    cells: set[Cell], subjects: dict[str, Subject], folder: Path, sweep: Sweep, progress: Progress
) -> dict[Cell, dict[str, Any]]:
    """Galleries built; accuracy and what the model sees of a picture, by cell."""
    scorer = Scorer(folder, sweep.measure.places, progress)
    cards: dict[tuple[Any, ...], Card] = {}
    seen: dict[str, Row] = {}
    for cell in sorted(cells, key=lambda one: (one.fingerprint, one.job)):
        bundle = subjects[cell.fingerprint].bundle
        if cell.job in ("search", "rerank", "locate"):
            _gallery_for(cell, bundle, progress)
        what = (cell.fingerprint, cell.job, cell.dims, cell.rerank, cell.candidates)
        if what not in cards:
            cards[what] = scorer.card(cell, bundle)
        if cell.fingerprint not in seen:
            seen[cell.fingerprint] = picture_facts(bundle, read_inputs(folder / "inputs", 1)[1][0])
    return {
        cell: {
            "accuracy": cards[cell.fingerprint, cell.job, cell.dims, cell.rerank, cell.candidates],
            "picture": seen[cell.fingerprint],
        }
        for cell in cells
    }


def _shuffled(todo: Sequence[tuple[int, Cell]], seed: int) -> list[tuple[int, Cell]]:
    """All cells of a power mode together, in it round by round, each round in an order of its own.

    In random order a drift of the machine's speed falls on all settings alike.
    """
    chance = random.Random(seed)
    places = [(step, chance.random()) for step in todo]
    modes = list(dict.fromkeys(cell.power_mode for _, cell in todo))
    chance.shuffle(modes)
    order = sorted(places, key=lambda item: (modes.index(item[0][1].power_mode), item[0][0], item[1]))
    return [step for step, _ in order]


def _cool_down(measure: Measuring, start_c: float | None) -> None:
    time.sleep(measure.pause_s)
    end = time.monotonic() + measure.cool_down_s
    while start_c is not None and (now := temperature_c()) is not None:
        if now <= start_c + _COOL_C or time.monotonic() >= end:
            return
        time.sleep(_LOOK_S)


def _facts(cell: Cell, subject: Subject, sweep: Sweep) -> Line:
    bundle = subject.bundle
    role = bundle.manifest.roles.embed
    return {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "sweep": sweep.name,
        "bundle": bundle.manifest.name,
        "fingerprint": bundle.fingerprint,
        "label": cell.label,
        "precision": "+".join(sorted({part.precision for part in bundle.manifest.components.values()})),
        "method": subject.method or method_of(bundle),
        "components": {name: part.precision for name, part in bundle.manifest.components.items()},
        "checkpoint": subject.checkpoint,
        "asked_method": subject.method,
        "recipe": subject.recipe,
        "size_bytes": bundle.bytes,
        "job": cell.job,
        "batch": cell.batch,
        "threads": cell.threads or "auto",
        "component_threads": _threads(cell, bundle),
        "provider": cell.provider,
        "dims": cell.dims,
        "whole_dims": role.dim if role else 0,
        "rerank": cell.rerank,
        "candidates": cell.candidates,
        "power_mode": None if cell.power_mode == AS_IS else cell.power_mode,
        "places": cell.places,
        "warmup": cell.warmup,
        "versions": versions(),
    }


def _threads(cell: Cell, bundle: Bundle) -> dict[str, int]:
    """Intra-op threads of each component on the processor, named or chosen."""
    names = bundle.manifest.components if cell.provider == "cpu" else ()
    chosen = {name: suited_threads(bundle.graph_bytes(name), default_threads()) for name in names}
    return {name: cell.threads or count for name, count in chosen.items()}


def _gallery_for(cell: Cell, bundle: Bundle, progress: Progress) -> None:
    from edgegeo.planet import Planet
    from edgegeo.runtime import Embedder, Gallery, Model
    from edgegeo.runtime.gallery.sources import planet_places

    target = Path(cell.gallery)
    if not (target / "gallery.json").exists():
        model = Model.open(bundle)
        embedder = Embedder(model, dims=cell.dims) if cell.dims else Embedder(model)
        Gallery.build(target, planet_places(Planet(), "test", cell.places), embedder, progress=progress)
