"""The sweep's memory: an append-only JSONL file, one finished cell a line."""

import json
import os
from pathlib import Path
from typing import Any

from edgegeo.errors import InputError

Row = dict[str, Any]


class Ledger:
    """Rows by key. A line cut off by a crash is passed over, so that its cell is measured again."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: dict[str, Row] = {}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            text = file.read_text(encoding="utf-8") if file.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file} can't be used for the results ({error}); choose another place with -o") from None
        self._torn = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(row.get("key"), str):
                self.rows[row["key"]] = row

    def finished(self, key: str) -> bool:
        """Whether the cell was measured before; a failed one is tried again."""
        return key in self.rows and "error" not in self.rows[key]

    def append(self, row: Row) -> None:
        """Write one row and have it on disk before returning. Raises InputError when the disk refuses."""
        line = json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write("\n" + line if self._torn else line)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise InputError(
                f"{self.file} can't be written ({error.strerror or error}); free some space and run the same command "
                "again: it goes on where it stopped"
            ) from None
        self._torn = False
        self.rows[row["key"]] = row
