"""What a long search has measured so far, a line each: one that was killed goes on where it stopped."""

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Journal:
    """Measurements by key, kept in a file; without one, in memory only."""

    def __init__(self, file: Path | None = None, facts: Mapping[str, Any] | None = None) -> None:
        """facts: what all measurements depend on. A file that was written under other facts is begun anew."""
        self.file = file
        self.known: dict[str, Any] = {}
        if file is None:
            return
        first = json.dumps(facts, sort_keys=True)
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        lines = text.splitlines()
        if lines[:1] != [first]:
            file.write_text(first + "\n", encoding="utf-8")
            return
        if not text.endswith("\n"):
            file.write_text(text + "\n", encoding="utf-8")
        for line in lines[1:]:
            with contextlib.suppress(ValueError):  # the last line of a run that was killed while writing
                key, value = json.loads(line)
                self.known[key] = value

    def recall(self, key: list[Any], measure: Callable[[], Any]) -> Any:
        """The value of a key, measured (as JSON has it) where it is not known."""
        name = json.dumps(key)
        if name not in self.known:
            self.known[name] = measure()
            if self.file is not None:
                with self.file.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps([name, self.known[name]]) + "\n")
        return self.known[name]

    def close(self) -> None:
        """Remove the file: what was measured has served."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)
