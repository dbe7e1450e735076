"""One round of one cell in one process: `python -m edgegeo.bench.worker` reads it on stdin and prints its numbers.

A process of its own gives a peak memory and a cold start that no earlier cell has touched.
"""

import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from edgegeo.bench.cells import Cell
from edgegeo.bench.energy import device_memory_mb, open_energy
from edgegeo.bench.inputs import read_inputs
from edgegeo.bench.jobs import open_job
from edgegeo.bench.machine import load_average, temperature_c
from edgegeo.errors import EdgegeoError
from edgegeo.measure import StoppingRule, peak_resident_mb, proportional_mb, resident_mb, time_until

STAGE_SECONDS = 0.2
MOST_STAGE_RUNS = 20


def measure(cell: Cell, spawned: float) -> dict[str, Any]:
    """Run the cell and return its numbers.

    `spawned` is the parent's time.monotonic() just before the process was started. Times are in milliseconds, memory
    in MB of 2**20 bytes. Stages are told apart after the counted runs, so that telling takes nothing from them.
    """
    texts, photos = read_inputs(Path(cell.inputs), cell.count)
    start = time.monotonic()
    job = open_job(cell, texts, photos)
    loaded = time.monotonic()
    calls = itertools.count()

    def once() -> Any:
        return job.run(next(calls))

    first = once()
    answered = time.monotonic()
    first_mb = resident_mb()
    for _ in range(cell.warmup - 1):
        once()
    energy = open_energy(gpus=cell.provider != "cpu")
    idle = energy.idle_watts()
    with energy.counted():
        seconds, verdict = time_until(once, StoppingRule(cell.target, cell.min_repeats, cell.max_repeats, cell.seconds))
    items = len(seconds) * job.items
    memory = {"first_result": first_mb, "peak": peak_resident_mb(), "proportional": proportional_mb()}
    if cell.provider != "cpu":
        memory["device"] = device_memory_mb(os.getpid()) or 0.0
    joules = sum(energy.joules.values())
    return {
        "samples_ms": [1e3 * second for second in seconds],
        "stopped": verdict,
        "load_ms": 1e3 * (loaded - start),
        "cold_start_ms": 1e3 * (answered - spawned),
        "memory_mb": memory,
        "energy": {
            "joules_per_item": joules / items, "watts": energy.watts(), "idle_watts": idle,
            "meters": {name: value / items for name, value in energy.joules.items()},
        } if energy.joules else {"why": energy.why_not()},
        "stages_ms": job.clock.breakdown(once, _stage_runs(sum(seconds) / len(seconds))),
        "temperature_c": temperature_c(),
        "load_average": load_average(),
        **job.facts(first),
    }  # fmt: skip


def _stage_runs(seconds: float) -> int:
    return max(1, min(MOST_STAGE_RUNS, round(STAGE_SECONDS / max(seconds, 1e-6))))


def _short(value: Any) -> Any:
    """Numbers to five digits: more is noise, and every sample is kept."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: _short(part) for name, part in value.items()}
    return [_short(part) for part in value] if isinstance(value, list) else value


def main() -> int:
    """Read the task, print the numbers; a known error is printed as {"error": ...} with exit code 2."""
    task = json.loads(sys.stdin.read())
    try:
        row = measure(Cell(**task["cell"]), task["spawned"])
    except EdgegeoError as error:
        print(json.dumps({"error": str(error)}))
        return 2
    print(json.dumps(_short(row), allow_nan=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
