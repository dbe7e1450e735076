"""The one way edgegeo times things, reads its own memory, and sizes folders."""

import contextlib
import itertools
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


@dataclass(frozen=True)
class StoppingRule:
    """How long a job is repeated: until its median is known well enough, within limits."""

    target: float = 0.02
    """Half the 95 % interval of the median, as a share of the median, that is narrow enough."""
    min_repeats: int = 10
    max_repeats: int = 1000
    seconds: float = 1.0
    """Once the least number of repeats is done, none begins after this time."""

    def __post_init__(self) -> None:
        if not 0 < self.target < 1 or not self.seconds > 0 or not 1 <= self.min_repeats <= self.max_repeats:
            raise InputError(
                "repeats must be 1 or more, seconds above 0, and the interval's target between 0 and 1 (0.02 is 2 %)"
            )

    def verdict(self, seconds: Sequence[float]) -> str:
        """Why no further repeat is needed: "narrow", "time" or "repeats"; empty while it goes on."""
        count = len(seconds)
        if count < self.min_repeats:
            return ""
        if count >= self.max_repeats:
            return "repeats"
        if math.fsum(seconds) >= self.seconds:
            return "time"
        # Looked at now and then only: whoever looks after every repeat stops at the first lucky streak.
        if count % self.min_repeats == 0:
            low, high = quantile_interval(seconds, 50)
            if (high - low) / 2 <= self.target * percentile(seconds, 50):
                return "narrow"
        return ""


def time_until(job: Callable[[], object], rule: StoppingRule) -> tuple[list[float], str]:
    """Wall seconds of each run of `job` until the rule is content, and its verdict. Warm up before."""
    out: list[float] = []
    while not (verdict := rule.verdict(out)):
        start = time.perf_counter()
        job()
        out.append(time.perf_counter() - start)
    return out, verdict


def quantile_interval(values: Sequence[float], q: float) -> tuple[float, float]:
    """95 % interval of the q-th percentile (0..100) of a series in the order it was measured.

    Ranks around the percentile as the binomial distribution spreads them (David and Nagaraja, Order Statistics, 2003,
    section 7.1, normal approximation), for the number of independent values that the series is worth: neighbours are
    alike, n (1 - r) / (1 + r) with r the correlation of each value with the next. Never narrower than the ranks beside
    the percentile; the whole range where there are too few values to say more.
    """
    share = q / 100
    worth = max(2.0, len(values) * _independence(values))
    spread = 100 * 1.96 * math.sqrt(share * (1 - share) / worth)
    one = 50 / max(1, len(values) - 1)
    spread = max(spread, one)
    return percentile(values, max(0.0, q - spread)), percentile(values, min(100.0, q + spread))


def _independence(values: Sequence[float]) -> float:
    """(1 - r) / (1 + r) within 0.02..1; r by ranks, so that one late value does not hide a drift."""
    if len(values) < 4:
        return 1.0
    order = sorted(range(len(values)), key=lambda i: values[i])
    ranks = [0.0] * len(values)
    for rank, index in enumerate(order):
        ranks[index] = rank - (len(values) - 1) / 2
    total = math.fsum(rank * rank for rank in ranks)
    r = math.fsum(a * b for a, b in itertools.pairwise(ranks)) / total
    return min(1.0, max(0.02, (1 - r) / (1 + r)))


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


def proportional_mb() -> float:
    """Memory of this process in MB (2**20 bytes), pages that several processes map shared out among them (PSS).

    0.0 where the system does not tell.
    """
    return _field_mb("/proc/self/smaps_rollup", "Pss:")


def available_mb() -> float:
    """Memory that this machine can still give without swapping, in MB (2**20 bytes); infinite where it isn't told."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return math.inf


def folder_bytes(folder: Path) -> int:
    """Size of all files under a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


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
    return _field_mb("/proc/self/status", field)


def _field_mb(file: str, field: str) -> float:
    try:
        for line in Path(file).read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0
