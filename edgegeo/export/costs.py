"""What an export takes: seconds and peak memory of each of its stages, measured as they run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from edgegeo.measure import peak_resident_mb, reset_peak_resident


@dataclass(frozen=True)
class Cost:
    """One stage."""

    stage: str
    seconds: float
    peak_mb: float
    """Largest resident memory of the process during the stage (2**20 bytes), files mapped into memory included."""


@dataclass
class Costs:
    """Collects the stages of one export; a stage may come several times and is then summed."""

    rows: list[Cost] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what runs inside; stages don't nest."""
        reset_peak_resident()
        started = time.monotonic()
        try:
            yield
        finally:
            took, peak = time.monotonic() - started, peak_resident_mb()
            before = next((row for row in self.rows if row.stage == name), None)
            if before is not None:
                self.rows.remove(before)
                took, peak = took + before.seconds, max(peak, before.peak_mb)
            self.rows.append(Cost(name, took, peak))

    @property
    def peak_mb(self) -> float:
        """The largest of all stages."""
        return max((row.peak_mb for row in self.rows), default=0.0)
