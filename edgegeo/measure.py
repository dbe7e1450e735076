"""The one way edgegeo times things and reads its own memory."""

import contextlib
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgegeo.errors import InputError


@dataclass(frozen=True)
class Latency:
    """Percentiles over the repeats of one job, in milliseconds."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    repeats: int


def percentile(values: Sequence[float], q: float) -> float:
    """The q-th percentile (0..100), linear between ranks, as numpy's default."""
    if not values:
        raise InputError("no values to take a percentile of")
    ordered = sorted(values)
    rank = (len(ordered) - 1) * q / 100
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def summarize(seconds: Sequence[float]) -> Latency:
    """Percentiles of raw timings given in seconds."""
    ms = [s * 1e3 for s in seconds]
    return Latency(
        percentile(ms, 50),
        percentile(ms, 90),
        percentile(ms, 99),
        statistics.fmean(ms) if ms else 0.0,
        len(ms),
    )


def time_job(job: Callable[[], object], repeats: int, warmup: int = 2) -> list[float]:
    """Wall seconds of each counted run of `job`, after `warmup` runs that are not counted."""
    for _ in range(warmup):
        job()
    out = []
    for _ in range(repeats):
        start = time.perf_counter()
        job()
        out.append(time.perf_counter() - start)
    return out


def time_in_turn(jobs: dict[str, Callable[[], object]], repeats: int, warmup: int = 2) -> dict[str, list[float]]:
    """Time several jobs A B C A B C ..., so that a drift of the machine's speed meets all of them alike."""
    for job in jobs.values():
        for _ in range(warmup):
            job()
    out: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            out[name] += time_job(job, 1, warmup=0)
    return out


def resident_mb() -> float:
    """Resident memory of this process now, in MB (2**20 bytes); 0.0 where the system does not tell."""
    return _status_mb("VmRSS:")


def peak_resident_mb() -> float:
    """Largest resident memory of this process so far, in MB (2**20 bytes); 0.0 where the system does not tell."""
    return _status_mb("VmHWM:")


def reset_peak_resident() -> None:
    """Let `peak_resident_mb` start again from now; where the system can't, it stays the peak since the start."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def available_mb() -> float:
    """Memory that this machine can still give without swapping, in MB (2**20 bytes); infinite where it isn't told."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return math.inf


def machine() -> dict[str, str | int]:
    """Facts of this machine that a published number needs beside it."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return {
        "cpu": model,
        "cores": len(_affinity()),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def _affinity() -> Sequence[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return range(os.cpu_count() or 1)


def _status_mb(field: str) -> float:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0
