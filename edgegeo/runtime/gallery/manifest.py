"""What a gallery says of itself: gallery.json, and unfinished.json while a build or an addition goes on.

Both files are JSON with the hash of their own body in front, so that a flipped byte is found before anything is parsed:
    {"schema": 3,
    "sha256": "...",
    "gallery": {...}}
A new version is written beside the old one, synced, and renamed over it: a reader sees one of the two, whole.
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edgegeo.bundle import FileEntry, sync
from edgegeo.errors import GalleryError
from edgegeo.runtime.gallery.rows import Origin, Skipped
from edgegeo.schema import SchemaFault, parse, to_plain

SCHEMA_VERSION = 3
READABLE = (2, 3)
"""Version 2 has segments without checksums of blocks, which are hashed whole when they are opened."""
INFO_NAME = "gallery.json"
JOURNAL_NAME = "unfinished.json"
SEGMENTS = "segments"
LOCK_NAME = "lock"
DTYPES = ("float32", "float16")
STAGES = ("int8", "binary", "ivf")
_SEALED = re.compile(rb'\{"schema": (\d{1,9}),\n"sha256": "([0-9a-f]{64})",\n"gallery": (.*)\}\n', re.DOTALL)
_NAMED = re.compile(rb'\s*\{\s*"schema": (\d{1,9})\b')
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

T = TypeVar("T")


@dataclass(frozen=True)
class StageEntry:
    """A way to candidates, which are scored again by their vectors: how it is set, and what that was found to keep."""

    kind: str
    """One of STAGES: a scan of int8 or binary codes, or the lists of an inverted file (inverted.py)."""
    candidates: int
    """Rows that are scored again, for up to ten hits."""
    recall: float
    """Share of the exact ten nearest among the hits, measured when it was made, with rows of its own as queries."""
    probes: int = 0
    """Lists that are read, of an inverted file."""


@dataclass(frozen=True)
class SegmentEntry:
    """One immutable folder of rows under segments/."""

    name: str
    rows: int
    files: dict[str, FileEntry]
    by_place: bool = False
    """Whether the rows follow a curve over the sphere (hilbert.py), or the order they came in."""
    stages: tuple[StageEntry, ...] = ()
    """Codes, then an inverted file, where there are any."""


@dataclass(frozen=True)
class DeletedEntry:
    """The file of deleted rows, numbered through all segments, ascending."""

    name: str
    rows: int
    file: FileEntry


@dataclass(frozen=True)
class GalleryInfo:
    """gallery.json, whole."""

    version: int
    """One more with every change."""
    bundle: str
    """Name of the bundle that embedded the tiles."""
    embedding_id: str
    dim: int
    dtype: str
    sources: tuple[Origin, ...]
    """What it was built from, then what was added."""
    skipped: tuple[Skipped, ...]
    """Tiles of the build that could not be used."""
    segments: tuple[SegmentEntry, ...]
    deleted: DeletedEntry | None = None
    absorbed: str = ""
    """Token of the last journal whose tiles became part of the gallery."""

    @property
    def stored(self) -> int:
        """Rows of all segments, deleted ones included."""
        return sum(segment.rows for segment in self.segments)

    @property
    def count(self) -> int:
        """Rows that are there."""
        return self.stored - (self.deleted.rows if self.deleted else 0)


@dataclass(frozen=True)
class Journal:
    """unfinished.json: tiles that are embedded and not yet in the gallery."""

    token: str
    bundle: str
    embedding_id: str
    dtype: str
    source: Origin
    segments: tuple[SegmentEntry, ...]


def read_info(path: Path) -> GalleryInfo:
    """gallery.json of a gallery's folder; GalleryError for a missing, damaged or unknown one."""
    if not path.is_dir():
        raise GalleryError(f"no gallery at {path}; build one with: edgegeo index build -o {path}")
    file = path / INFO_NAME
    info = _read(file, GalleryInfo)
    if info is None:
        if (path / JOURNAL_NAME).exists() or (path / LOCK_NAME).exists():
            raise GalleryError(
                f"the gallery {path} is not finished: its build goes on, or was interrupted; then give the same "
                "edgegeo index build command again"
            )
        raise GalleryError(f"{path} has no {INFO_NAME}: it is not a gallery; build one elsewhere")
    names = [segment.name for segment in info.segments] + ([info.deleted.name] if info.deleted else [])
    sound = info.dtype in DTYPES and info.dim > 0 and info.count > 0 and all(s.rows > 0 for s in info.segments)
    stages = [stage for segment in info.segments for stage in segment.stages]
    sound = sound and all(stage.kind in STAGES and stage.candidates > 0 and stage.probes >= 0 for stage in stages)
    if not sound or not all(map(_PLAIN_NAME.fullmatch, names)) or len(set(names)) < len(names):
        raise GalleryError(f"{file} is damaged (its numbers or names don't fit); build the gallery again")
    return info


def read_journal(path: Path) -> Journal | None:
    """unfinished.json of a gallery's folder, None without one; GalleryError for a damaged one."""
    journal = _read(path / JOURNAL_NAME, Journal)
    if journal is not None and not all(_PLAIN_NAME.fullmatch(segment.name) for segment in journal.segments):
        raise GalleryError(f"{path / JOURNAL_NAME} is damaged; start the build again with --restart")
    return journal


def write_sealed(file: Path, value: GalleryInfo | Journal) -> None:
    """Replace gallery.json or unfinished.json in one step that survives a power cut."""
    body = json.dumps(to_plain(value), indent=1, allow_nan=False).encode()
    head = f'{{"schema": {SCHEMA_VERSION},\n"sha256": "{hashlib.sha256(body).hexdigest()}",\n"gallery": '
    draft = file.with_name(f".{file.name}.part")
    with draft.open("wb") as stream:
        stream.write(head.encode() + body + b"}\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(draft, file)
    sync(file.parent)


def _read(file: Path, kind: type[T]) -> T | None:
    remedy = "build the gallery again" if kind is GalleryInfo else "start the build again with --restart"
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise GalleryError(f"{file} can't be read ({error.strerror or error}); {remedy}") from None
    sealed = _SEALED.fullmatch(raw)
    named = sealed or _NAMED.match(raw)
    if named is not None and int(named[1]) not in READABLE:
        read = " and ".join(map(str, READABLE))
        raise GalleryError(
            f"{file.parent} has gallery version {int(named[1])}, this edgegeo reads versions {read}; {remedy}"
        )
    sound = sealed is not None and hashlib.sha256(sealed[3]).hexdigest().encode() == sealed[2]
    # The version alone stands outside the hash: the body tells whether it is the one it was written with.
    if sealed is None or not sound or (int(sealed[1]) > 2) != (b'"by_place":' in sealed[3]):
        raise GalleryError(f"{file} is damaged (it differs from its own hash); {remedy}")
    try:
        data: Any = json.loads(sealed[3])
        return parse(kind, data, file.name)
    except (SchemaFault, ValueError, RecursionError) as fault:
        raise GalleryError(f"{file} is damaged ({fault}); {remedy}") from None
