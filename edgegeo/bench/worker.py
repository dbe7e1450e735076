"""One cell in one process: `python -m edgegeo.bench.worker` reads a Cell and a start time on stdin, prints a row.

A process of its own gives a peak memory and a cold start that no earlier cell has touched.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgegeo.bench.cells import Cell
from edgegeo.bench.inputs import read_inputs
from edgegeo.errors import EdgegeoError
from edgegeo.measure import peak_resident_mb, resident_mb, summarize, time_job


def measure(cell: Cell, spawned: float) -> dict[str, Any]:
    """Run the cell and return its numbers.

    `spawned` is the parent's time.monotonic() just before the process was started. Times are in milliseconds, memory
    in MB of 2**20 bytes.
    """
    texts, photos = read_inputs(Path(cell.inputs), cell.batch)
    start = time.monotonic()
    job, describe = _job(cell, texts, photos)
    loaded = time.monotonic()
    first = job()
    answered = time.monotonic()
    loaded_mb = resident_mb()
    pilot = time_job(job, 1, warmup=max(0, cell.warmup - 1))[0]
    repeats = min(cell.max_repeats, max(cell.min_repeats, round(cell.seconds / max(pilot, 1e-6))))
    latency = summarize(time_job(job, repeats, warmup=0))
    return {
        "latency_ms": {
            "p50": latency.p50_ms,
            "p90": latency.p90_ms,
            "p99": latency.p99_ms,
            "mean": latency.mean_ms,
        },
        "repeats": latency.repeats,
        "item_ms": latency.p50_ms / cell.batch,
        "throughput_per_s": 1e3 * cell.batch / latency.mean_ms,
        "load_ms": 1e3 * (loaded - start),
        "cold_start_ms": 1e3 * (answered - spawned),
        "memory_mb": {"first_result": loaded_mb, "peak": peak_resident_mb()},
        **describe(first),
    }


def _job(
    cell: Cell, texts: list[str], photos: list[bytes]
) -> tuple[Callable[[], Any], Callable[[Any], dict[str, Any]]]:
    """The work to time, and what its result adds to the row."""
    from edgegeo.runtime import Embedder, Gallery, Generator

    if cell.job == "generate":
        generator = Generator.open(cell.bundle, threads=cell.threads or None)
        return lambda: generator.answers(photos, batch=cell.batch), _tokens
    embedder = Embedder.open(cell.bundle, threads=cell.threads or None)
    if cell.job == "embed_image":
        return lambda: embedder.images(photos, batch=cell.batch), _nothing
    if cell.job == "embed_text":
        return lambda: embedder.texts(texts, batch=cell.batch), _nothing
    gallery = Gallery.open(cell.gallery)
    k = min(10, len(gallery))
    return lambda: gallery.search(embedder.texts(texts, batch=cell.batch), k), lambda _: {"gallery": len(gallery)}


def _tokens(answers: Any) -> dict[str, Any]:
    return {"tokens": sum(len(answer.tokens) for answer in answers) / len(answers)}


def _nothing(result: Any) -> dict[str, Any]:
    return {}


def main() -> int:
    """Read the task, print the row; a known error is printed as {"error": ...} with exit code 2."""
    task = json.loads(sys.stdin.read())
    try:
        row = measure(Cell(**task["cell"]), task["spawned"])
    except EdgegeoError as error:
        print(json.dumps({"error": str(error)}))
        return 2
    print(json.dumps(row, allow_nan=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
