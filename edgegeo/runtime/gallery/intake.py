"""Tiles into segments: opened, told apart, embedded batch by batch, and safe on disk every few seconds.

What is embedded is listed in unfinished.json, so that a build or an addition that was killed takes it up again. A
tile counts as finished by its identity (rows.py): pictures that changed since are embedded again, those that
are gone are left out, and the order is always that of the source.
"""

import math
import operator
import secrets
import shutil
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import GalleryError, InputError
from edgegeo.progress import Progress
from edgegeo.runtime.embed import Embedder
from edgegeo.runtime.gallery.manifest import (
    DTYPES,
    JOURNAL_NAME,
    SEGMENTS,
    GalleryInfo,
    Journal,
    SegmentEntry,
    write_sealed,
)
from edgegeo.runtime.gallery.rows import (
    DIGEST_BYTES,
    DUPLICATES,
    Origin,
    Row,
    Skipped,
    checked_row,
    identity,
)
from edgegeo.runtime.gallery.segment import SEGMENT_ROWS, Block, Segment, Stack, copy_rows, sync_segment, write_segment
from edgegeo.runtime.gallery.standing import Standing
from edgegeo.runtime.gallery.workers import LocalWorkers, Opened, TileWorkers, open_tile
from edgegeo.runtime.gallery.writing import pending
from edgegeo.runtime.pictures import Picture


@dataclass(frozen=True)
class IntakeSettings:
    """How tiles are taken in."""

    batch: int = 16
    """Pictures a call of the model."""
    dtype: str = "float32"
    codes: str = ""
    """"int8" or "binary": codes for the gallery's first scan (compact.py); the dtype is float16 then."""
    duplicates: str = "skip"
    """One of DUPLICATES. Copies of one picture at one place only crowd the results, so they are left out; at other
    places the same picture is a fact of its own (open sea looks alike everywhere), so it is kept."""
    part_rows: int = 1024
    """Tiles that are held in memory before they are written."""
    part_seconds: float = 5.0
    """Longest time that embedded tiles wait to be written."""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(f"a gallery stores {' or '.join(DTYPES)}, not {self.dtype}")
        if self.duplicates not in DUPLICATES:
            raise InputError(f"duplicates are treated as {', '.join(DUPLICATES)}, not {self.duplicates!r:.40}")


class _Chunk(NamedTuple):
    """Rows of the source that are being opened."""

    rows: list[Row | Skipped]
    marks: dict[str, bytes]
    """Identity of each usable row by its id."""
    todo: list[Row]
    ticket: Any


@dataclass
class _Buffer:
    """Embedded tiles that are not on disk yet."""

    ids: list[bytes] = field(default_factory=list)
    positions: list[tuple[float, float]] = field(default_factory=list)
    vectors: list[NDArray[Any]] = field(default_factory=list)
    thumbs: list[bytes] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)

    def block(self, start: int, end: int) -> Block:
        digests = np.frombuffer(b"".join(self.digests[start:end]), np.uint8).reshape(-1, 2 * DIGEST_BYTES)
        return Block(
            self.ids[start:end],
            np.array(self.positions[start:end], np.float64).reshape(-1, 2),
            np.stack(self.vectors[start:end]),
            self.thumbs[start:end],
            digests,
        )


class Intake:
    """Takes rows in for one build, or for an addition to a `standing` gallery.

    An id that the standing gallery has is an InputError, unless it is to be replaced.
    """

    def __init__(
        self, path: Path, embedder: Embedder, settings: IntakeSettings, source: Origin | None,
        info: GalleryInfo | None, restart: bool = False, standing: Standing | None = None, replacing: bool = False,
        workers: TileWorkers | None = None,
    ) -> None:  # fmt: skip
        self.skipped: list[Skipped] = []
        self.samples: dict[int, Picture] = {}
        """A few of the taken tiles by their number among them, to be embedded again as a proof."""
        self.resumed = 0
        """Tiles that an earlier run had embedded."""
        self._path, self._embedder, self._settings = path, embedder, settings
        self._standing, self._replacing = standing, replacing
        self._workers = workers
        self._source = source
        self._journal = self._continued(source, info, restart)
        self._entries = list(self._journal.segments) if self._journal else []
        self._finished = self._read_finished()
        self._unused = len(self._finished)
        self._stored = sum(entry.rows for entry in self._entries)
        self._order: list[int] = []
        self._buffer = _Buffer()
        self._written = time.monotonic()
        self._ids: dict[str, int] = {}
        self._contents: dict[tuple[bytes, tuple[float, float] | None], str] = {}
        self._read = 0
        self._seen = 0
        self._blank = 0

    @property
    def token(self) -> str:
        """Names the journal, for the version that takes its tiles over; empty without one."""
        return self._journal.token if self._journal else ""

    @property
    def changed(self) -> int:
        """Tiles that an earlier run had embedded, and that the source no longer has as they were."""
        return self._unused - self.resumed

    def take(self, rows: Iterable[Any], progress: Progress) -> None:
        """Read a source to its end. InputError for an unusable row; what was embedded before it is kept."""
        stream, total = iter(rows), operator.length_hint(rows, 0)
        workers = self._workers or LocalWorkers(self._embedder.model)
        waiting: deque[_Chunk] = deque()
        try:
            try:
                while chunk := list(islice(stream, max(1, self._settings.batch))):
                    waiting.append(self._sent(chunk, workers))
                    if len(waiting) >= workers.window:
                        self._finish(waiting.popleft(), workers, progress, total)
            except InputError:
                self._finish_all(waiting, workers, progress, total)
                raise
            self._finish_all(waiting, workers, progress, total)
        finally:
            workers.close()
        if self._blank:
            name = str(self._source) if self._source else "rows"
            self.skipped.append(Skipped(name, f"{self._blank:,} tiles hold no data and were left out"))

    def segments(self) -> list[SegmentEntry]:
        """The taken tiles in the order of the source, as segments for the gallery."""
        spec = self._embedder.dim, self._settings.dtype
        stack = Stack([Segment.open(self._path, entry, *spec) for entry in self._entries])
        return copy_rows(self._path, stack, np.array(self._order, np.int64))

    def __len__(self) -> int:
        return len(self._order)

    def _continued(self, source: Origin | None, info: GalleryInfo | None, restart: bool) -> Journal | None:
        """The journal to go on with; None where the rows have no source that could be read again."""
        if source is None:
            return None
        found = None if restart else pending(self._path, info)
        bundle = self._embedder.model.bundle
        fresh = Journal(
            secrets.token_hex(8), bundle.manifest.name, bundle.embedding_id, self._settings.dtype, source, ()
        )
        if found is None:
            (self._path / JOURNAL_NAME).unlink(missing_ok=True)
            return fresh
        differs = {
            f"bundle '{found.bundle}', which embeds differently": found.embedding_id != fresh.embedding_id,
            found.dtype: found.dtype != fresh.dtype,
            str(found.source): found.source != source,
        }
        for what, other in differs.items():
            if other:
                raise GalleryError(
                    f"{self._path} holds unfinished work with {what}; finish it by the command that began it, or drop "
                    "it with --restart"
                )
        return found

    def _read_finished(self) -> dict[bytes, tuple[int, bytes]]:
        """Identity -> stored row and content, of tiles that an earlier run finished; damaged segments are left out."""
        out: dict[bytes, tuple[int, bytes]] = {}
        sound: list[SegmentEntry] = []
        for entry in self._entries:
            try:
                segment = Segment.open(self._path, entry, self._embedder.dim, self._settings.dtype)
            except GalleryError:
                continue  # its tiles are embedded again
            start = sum(one.rows for one in sound)
            for row, both in enumerate(segment.digests):
                out[both[:DIGEST_BYTES].tobytes()] = start + row, both[DIGEST_BYTES:].tobytes()
            sound.append(entry)
        self._entries = sound
        return out

    def _sent(self, items: list[Any], workers: TileWorkers) -> _Chunk:
        """Rows on their way to be opened, but for those that an earlier run has finished."""
        rows: list[Row | Skipped] = []
        for item in items:
            rows.append(item if isinstance(item, Skipped) else self._checked(Row(*item)))
            self._read += 1
        marks = {row.id: identity(row) for row in rows if isinstance(row, Row)}
        todo = [row for row in rows if isinstance(row, Row) and marks[row.id] not in self._finished]
        return _Chunk(rows, marks, todo, workers.submit(todo))

    def _finish_all(self, waiting: deque[_Chunk], workers: TileWorkers, progress: Progress, total: int) -> None:
        while waiting:
            self._finish(waiting.popleft(), workers, progress, total)
        self._flush()

    def _finish(self, chunk: _Chunk, workers: TileWorkers, progress: Progress, total: int) -> None:
        opened = dict(zip((row.id for row in chunk.todo), workers.result(chunk.ticket), strict=True))
        ready: list[tuple[Row, Opened]] = []
        for row in chunk.rows:
            found = row if isinstance(row, Skipped) else opened.get(row.id)
            if isinstance(row, Skipped) or isinstance(found, Skipped):
                assert isinstance(found, Skipped)
                self.skipped.append(found)
                continue
            if found is None and row.id in opened:
                self._blank += 1
                continue
            stored, digest = (self._stored, found.content) if found else self._finished[chunk.marks[row.id]]
            if self._is_duplicate(row, digest):
                continue
            self._sample(row, found)
            self._order.append(stored)
            if found:
                ready.append((row, found))
                self._stored += 1
            else:
                self.resumed += 1
        if ready:
            self._embed(ready, chunk.marks)
        self._seen += len(chunk.rows)
        waited = time.monotonic() - self._written
        if len(self._buffer.ids) >= self._settings.part_rows or waited >= self._settings.part_seconds:
            self._flush()
        progress("tiles", self._seen, total)

    def _embed(self, ready: list[tuple[Row, Opened]], marks: dict[str, bytes]) -> None:
        for (row, tile), vector in zip(ready, self._vectors([tile for _, tile in ready]), strict=True):
            if not np.isfinite(vector).all():
                raise GalleryError(f"tile '{row.id}' has no finite embedding; run edgegeo verify on the bundle")
            self._buffer.ids.append(row.id.encode())
            self._buffer.positions.append((row.lat, row.lon))
            self._buffer.vectors.append(vector.astype(self._settings.dtype))
            self._buffer.thumbs.append(tile.thumb)
            self._buffer.digests.append(marks[row.id] + tile.content)

    def _vectors(self, tiles: list[Opened]) -> Iterable[NDArray[Any]]:
        """Unit vectors of tiles, embedded here unless a worker has done so."""
        done = [tile.vector for tile in tiles if tile.vector is not None]
        if len(done) == len(tiles):
            return done
        model, role = self._embedder.model, self._embedder.role
        pictures = [tile.picture for tile in tiles if tile.picture is not None]
        return self._embedder.features(model.features(role.vision, pictures))

    def _flush(self) -> None:
        """Put what is embedded on disk, and many small segments into one."""
        self._written = time.monotonic()
        if not self._buffer.ids:
            return
        new, merged = [write_segment(self._path, len(self._buffer.ids), self._buffer.block)], []
        self._buffer = _Buffer()
        small = list(takewhile(lambda entry: entry.rows < SEGMENT_ROWS, reversed(self._entries)))[::-1]
        if sum(entry.rows for entry in (*small, *new)) >= SEGMENT_ROWS:
            merged = [*small, *new]
            spec = self._embedder.dim, self._settings.dtype
            stack = Stack([Segment.open(self._path, entry, *spec) for entry in merged])
            new = copy_rows(self._path, stack, np.arange(len(stack)))
            del self._entries[len(self._entries) - len(small) :]
        self._entries += new
        if self._journal:
            for entry in new:
                sync_segment(self._path, entry)
            journal = replace(self._journal, segments=tuple(self._entries))
            write_sealed(self._path / JOURNAL_NAME, journal)
        for entry in (one for one in merged if one not in new):
            shutil.rmtree(self._path / SEGMENTS / entry.name, ignore_errors=True)

    def _checked(self, row: Row) -> Row:
        row = checked_row(row, self._read)
        first = self._ids.setdefault(row.id, self._read)
        if first != self._read:
            raise InputError(
                f"row {self._read} (id {row.id!r:.60}): row {first} has the same id; give every tile its own"
            )
        if self._standing and not self._replacing and self._standing.has(row.id):
            raise InputError(
                f"row {self._read} (id {row.id!r:.60}): the gallery has a tile of this id; give it another, or replace "
                "it (--replace)"
            )
        return row

    def _is_duplicate(self, row: Row, digest: bytes) -> bool:
        how = self._settings.duplicates
        place = None if how == "skip-anywhere" else (row.lat, row.lon)
        first = self._contents.setdefault((digest, place), row.id)
        if first == row.id and self._standing and how != "keep":
            first = self._standing.twin(digest, place) or first
        if how == "keep" or first == row.id:
            return False
        self.skipped.append(Skipped(row.id, f"is the same picture as '{first}'"))
        return True

    def _sample(self, row: Row, tile: Opened | None) -> None:
        # Rows 0, 1, 4, 16, ...: a few from everywhere, whatever the number of tiles.
        number = len(self._order)
        if number == 0 or math.log(number, 4).is_integer():
            again = tile if tile and tile.picture else open_tile(row, self._embedder.model.bundle.manifest.image)
            if isinstance(again, Opened) and again.picture is not None:
                self.samples[number] = again.picture
