"""The sweep's memory: an append-only JSONL file, one round of one cell a line, every sample in it."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgegeo.errors import InputError

Line = dict[str, Any]
NAME = "results.jsonl"


class Ledger:
    """Lines by cell and round. A line cut off by a crash is passed over, so that its round is measured again."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines: dict[tuple[str, int], Line] = {}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            text = file.read_text(encoding="utf-8") if file.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file} can't be used for the results ({error}); choose another place with -o") from None
        self._torn = bool(text) and not text.endswith("\n")
        for line in _lines(text):
            self.lines[line["key"], line["round"]] = line

    def finished(self, key: str, number: int) -> bool:
        """Whether a round was measured before; a failed one is tried again."""
        return "error" not in self.lines.get((key, number), {"error": ""})

    def append(self, line: Line) -> None:
        """Write one line and have it on disk before returning. Raises InputError when the disk refuses."""
        text = json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write("\n" + text if self._torn else text)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise InputError(
                f"{self.file} can't be written ({error.strerror or error}); free some space and run the same command "
                "again: it goes on where it stopped"
            ) from None
        self._torn = False
        self.lines[line["key"], line["round"]] = line

    def rounds(self, key: str, count: int) -> list[Line]:
        """The lines of a cell's first `count` rounds, as far as they were measured."""
        return [self.lines[key, number] for number in range(count) if (key, number) in self.lines]


def read_lines(place: str | Path) -> list[Line]:
    """Every line of a results file, or of the one in a folder, in the order they were written; InputError if none."""
    file = Path(place)
    file = file / NAME if file.is_dir() else file
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        folder = file.parent if file.suffix == ".jsonl" else file
        raise InputError(f"no results at {file} ({why}); measure with: edgegeo bench -o {folder}") from None
    found = list(_lines(text))
    if not found:
        raise InputError(f"{file} holds no results of this version of edgegeo; measure with: edgegeo bench")
    return found


def _lines(text: str) -> Iterable[Line]:
    for raw in text.splitlines():
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("key"), str) and isinstance(line.get("round"), int):
            yield line
