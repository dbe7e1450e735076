"""One reading of one data set: opens its files, finds its pictures, and keeps account of every row."""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgegeo.datasets.report import Refusal, Report, Trap
from edgegeo.errors import InputError
from edgegeo.geo import Position

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
EXAMPLES = 3


class RowFault(Exception):
    """Why a row can't be used. Raised inside `Reader.row`, which counts it."""

    def __init__(self, reason: str, detail: object = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = f"{detail!s:.120}"


class Reader:
    """The files of one split and the account of their rows.

    root: the data set's folder, or one of its files; None for one that is made. damaged: pictures known to be
    unreadable, with the reason.
    """

    def __init__(
        self, dataset: str, root: str | Path | None, split: str, damaged: Mapping[Path, str] | None = None
    ) -> None:
        self._label = "no files" if root is None else str(root)
        named = Path(root or ".").expanduser()
        if not named.exists():
            raise InputError(f"nothing at {named}; give the folder of {dataset}")
        self.dataset = dataset
        self.split = split
        self.root = named if named.is_dir() else named.parent
        self.file = None if named.is_dir() else named
        self._damaged = damaged or {}
        self._read = 0
        self._refused: dict[str, tuple[int, list[str]]] = {}
        self._traps: dict[str, tuple[int, str]] = {}
        self._warnings: list[str] = []
        self._where = ""
        self._names: dict[tuple[Path, tuple[str, ...]], tuple[Path, dict[str, str]]] = {}

    @contextmanager
    def row(self, where: str) -> Iterator[None]:
        """Read one row inside this: a RowFault refuses it, whatever else happens keeps it."""
        self._read += 1
        self._where = where
        try:
            yield
        except RowFault as fault:
            count, examples = self._refused.setdefault(fault.reason, (0, []))
            if len(examples) < EXAMPLES:
                examples.append(f"{where}: {fault.detail}" if fault.detail else where)
            self._refused[fault.reason] = (count + 1, examples)

    def trap(self, what: str, detail: object = "") -> None:
        """Count an oddity that was dealt with, with the row it was first met in."""
        count, first = self._traps.get(what, (0, f"{self._where}: {detail!s:.80}" if detail else self._where))
        self._traps[what] = (count + 1, first)

    def warn(self, text: str) -> None:
        """Say something a person should look at before trusting a score."""
        self._warnings.append(text)

    def report(self) -> Report:
        """The account so far; commonest reasons first."""
        refused = sorted(self._refused.items(), key=lambda item: -item[1][0])
        count = sum(number for _, (number, _) in refused)
        return Report(
            dataset=self.dataset,
            root=self._label,
            split=self.split,
            read=self._read,
            kept=self._read - count,
            refused=tuple(Refusal(reason, number, tuple(examples)) for reason, (number, examples) in refused),
            traps=tuple(Trap(what, number, first) for what, (number, first) in self._traps.items()),
            warnings=tuple(self._warnings),
        )

    def folder(self, *candidates: str) -> Path | None:
        """The first of these folders below the root that exists."""
        return next((path for name in candidates if (path := self.root / name).is_dir()), None)

    def need(self, *candidates: str) -> Path:
        """The file that was named, else the first of these files below the root that exists; InputError otherwise."""
        if self.file is not None:
            return self.file
        for name in candidates:
            if (path := self.root / name).is_file():
                return path
        raise InputError(
            f"{self.root} holds no {' or '.join(candidates)}, which {self.dataset} needs; it holds {seen(self.root)}"
        )

    def json(self, file: Path) -> Any:
        """A whole JSON file. A key that comes twice keeps its first value and is counted as a trap."""
        self._where = file.name
        try:
            return json.loads(file.read_bytes(), object_pairs_hook=self._pairs)
        except OSError as error:
            raise InputError(f"{file} can't be read ({error.strerror or error}); check the path") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file} is not a JSON file ({str(error)[:80]}); download it again") from None

    def json_rows(self, file: Path) -> Iterator[tuple[str, Any]]:
        """The rows of a JSON list or of JSON lines with their place; a line that is no JSON comes as the exception."""
        if file.suffix.lower() not in (".jsonl", ".ndjson"):
            rows = self.json(file)
            if not isinstance(rows, list):
                raise InputError(f"{file} holds a JSON {type(rows).__name__}, not a list of rows; check the file")
            yield from ((f"{file.name}[{number}]", row) for number, row in enumerate(rows))
            return
        for number, line in enumerate(lines_of(file), 1):
            if not line.strip():
                continue
            try:
                yield f"{file.name}:{number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                yield f"{file.name}:{number}", RowFault("the line is not JSON", error)

    def csv_rows(self, file: Path) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
        """The header of a CSV file, and its rows with their last line; short rows have empty cells."""
        try:
            # Authors' names come in every encoding, and no score depends on them.
            text = file.read_text("utf-8-sig", errors="replace")
        except OSError as error:
            raise InputError(f"{file} can't be read ({error.strerror or error}); check the path") from None
        reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
        try:
            header = [name.strip() for name in reader.fieldnames or ()]
        except csv.Error as error:
            raise InputError(f"{file} is not a CSV file ({error})") from None
        reader.fieldnames = header
        return header, list(self._csv_rows(file, reader))

    def picture(self, name: object, *folders: Path | None) -> Path:
        """The file a row's picture name means, looked for in each folder in turn (None is passed over), else the root.

        RowFault for a name that leads out of the folder, is missing, or is of a damaged picture. Links are followed:
        people keep pictures on another disk.
        """
        parts = safe_parts(name)
        for folder in [f for f in folders if f is not None] or [self.root]:
            found = self._find(folder, parts)
            if found is not None:
                if found in self._damaged:
                    raise RowFault("damaged picture", f"{'/'.join(parts)} {self._damaged[found]}")
                return found
        raise RowFault("missing picture", "/".join(parts))

    def _find(self, folder: Path, parts: tuple[str, ...]) -> Path | None:
        parent, names = self._listing(folder, parts[:-1])
        last = parts[-1]
        if names.get(last) == last:
            return parent / last
        low = last.lower()
        found = names.get(low)
        if found is not None:
            self.trap("picture name differs in case from the file's", last)
            return parent / found
        if not low.endswith(SUFFIXES):
            for suffix in SUFFIXES:
                if (found := names.get(low + suffix)) is not None:
                    self.trap("picture name without its suffix", last)
                    return parent / found
        return None

    def _listing(self, folder: Path, below: tuple[str, ...]) -> tuple[Path, dict[str, str]]:
        """A folder, and its names and their lower-case forms to the real name; read once a folder."""
        key = (folder, below)
        if key not in self._names:
            parent = folder.joinpath(*below)
            try:
                with os.scandir(parent) as entries:
                    names = [entry.name for entry in entries if entry.is_file()]
            except OSError:
                names = []
            self._names[key] = parent, {name.lower(): name for name in names} | {name: name for name in names}
        return self._names[key]

    def _pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                self.trap("a key stands twice in the JSON; the first is kept", key)
            else:
                found[key] = value
        return found

    def _csv_rows(self, file: Path, reader: "csv.DictReader[str]") -> Iterator[tuple[str, dict[str, str]]]:
        try:
            for row in reader:
                # Cells beyond the header come under the key None.
                yield f"{file.name}:{reader.line_num}", {k: v for k, v in row.items() if isinstance(k, str)}
        except csv.Error as error:
            raise InputError(f"{file}, line {reader.line_num} is not CSV ({error})") from None


def entry_of(row: object, *keys: str) -> dict[str, Any]:
    """A row as a mapping that has these keys; RowFault otherwise."""
    if isinstance(row, RowFault):
        raise row
    if not isinstance(row, dict):
        raise RowFault("the row is no JSON object", repr(row))
    for key in keys:
        if key not in row:
            raise RowFault(f"no key '{key}'", ", ".join(map(str, row)))
    return row


def lines_of(file: Path) -> list[bytes]:
    """The lines of a text file without their ends."""
    try:
        return file.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{file} can't be read ({error.strerror or error}); check the path") from None


def safe_parts(name: object) -> tuple[str, ...]:
    """A picture's relative path in parts; RowFault for none, for an absolute one, or for one that climbs out."""
    if not isinstance(name, str) or not name.strip():
        raise RowFault("no picture named", repr(name))
    path = text_of(name, "picture name").replace("\\", "/")
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if path.startswith("/") or ".." in parts or "\0" in name or (parts and parts[0].endswith(":")):
        raise RowFault("picture path leaves the data set's folder", name)
    if not parts:
        raise RowFault("no picture named", repr(name))
    return parts


def place(lat: object, lon: object) -> Position:
    """A position from numbers or their text; RowFault for NaN, text, or numbers that are no place."""
    numbers = []
    for name, value in (("latitude", lat), ("longitude", lon)):
        try:
            number = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None
        except (ValueError, OverflowError):
            number = None
        if number is None:
            raise RowFault(f"{name} is no number", repr(value))
        numbers.append(number)
    try:
        return Position(*numbers)
    except InputError as error:
        nan = any(number != number for number in numbers)
        raise RowFault("coordinates are NaN" if nan else "coordinates out of range", error) from None


def text_of(value: object, what: str = "caption") -> str:
    """A caption without blanks around it; RowFault for none, an empty one, or something that is no text."""
    if not isinstance(value, str):
        raise RowFault(f"{what} is no text", repr(value))
    text = value.strip()
    if not text:
        raise RowFault(f"empty {what}")
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can carry and no tokenizer reads
        raise RowFault(f"{what} is not valid Unicode", repr(text)) from None
    return text


def seen(folder: Path, most: int = 6) -> str:
    """The first few names in a folder, for messages."""
    names = sorted(f"{p.name}/" if p.is_dir() else p.name for p in folder.iterdir() if not p.name.startswith("."))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "nothing"
