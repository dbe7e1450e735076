"""What the doctor reports, and the files it reads it from."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

OK, WARN, FAIL = "ok", "warn", "fail"
"""All is well; it works, but slower or less than it could; it doesn't work until it is mended."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    topic: str
    level: str
    """OK, WARN or FAIL."""
    found: str
    remedy: str = ""
    """What to do about it; empty where there is nothing to do."""


@dataclass(frozen=True)
class Root:
    """Where the kernel's and the system's files are read from: `/`, or a fabricated tree."""

    path: Path = field(default_factory=lambda: Path("/"))

    def text(self, relative: str) -> str:
        """A file's text without blanks and NULs around it; "" where it can't be read."""
        try:
            return (self.path / relative).read_text(encoding="utf-8", errors="replace").strip(" \t\r\n\0")
        except (OSError, ValueError):
            # ValueError: a sensor that sleeps answers with bytes that are no text of any kind.
            return ""

    def number(self, relative: str) -> int | None:
        """A file that holds one whole number; None where it does not."""
        try:
            return int(self.text(relative))
        except ValueError:
            return None

    def listed(self, pattern: str) -> list[str]:
        """Paths that match, relative to the root, in the order of their names."""
        return sorted(str(found.relative_to(self.path)) for found in self._matches(pattern))

    def _matches(self, pattern: str) -> Iterator[Path]:
        try:
            yield from self.path.glob(pattern)
        except OSError:
            return
