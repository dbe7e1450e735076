"""A training run's diary: one JSON line per entry, beside what the run writes."""

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any


def read_diary(file: Path) -> list[dict[str, Any]]:
    """The entries of a diary; a line that a full disk cut off is passed over."""
    entries = []
    for line in file.read_text("utf-8").splitlines():
        with suppress(ValueError):
            entries.append(json.loads(line))
    return entries


class Diary:
    """Appends to a JSONL file and keeps running means of the losses between entries."""

    def __init__(self, file: Path, until: int | None = None) -> None:
        """until: of a file that exists, keep the entries of the first steps only: the others are run again."""
        self.file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        if until is not None and file.is_file():
            kept = [json.dumps(entry) for entry in read_diary(file) if entry["step"] <= until]
            file.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._sums: dict[str, float] = {}
        self._count = 0
        self._since = time.monotonic()

    def add(self, losses: dict[str, float]) -> None:
        """One step's losses."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def write(self, step: int, **facts: float) -> dict[str, float]:
        """Write the means since the last entry, the seconds a step took, and further facts."""
        steps = max(1, self._count)
        entry = {name: round(total / steps, 4) for name, total in self._sums.items()}
        entry |= {"step": step, "seconds_per_step": round((time.monotonic() - self._since) / steps, 3)}
        entry |= facts
        with self.file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(entry) + "\n")
        self._sums, self._count, self._since = {}, 0, time.monotonic()
        return entry
