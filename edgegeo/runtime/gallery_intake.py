"""Tiles into segments: opened, told apart, embedded batch by batch, and safe on disk every few seconds.

What is embedded is listed in unfinished.json, so that a build or an addition that was killed takes it up again. A
tile counts as finished by its identity (gallery_rows.py): pictures that changed since are embedded again, those that
are gone are left out, and the order is always that of the source.
"""

import math
import operator
import secrets
import shutil
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgegeo.bundle import ImageSpec
from edgegeo.errors import GalleryError, ImageError, InputError
from edgegeo.progress import Progress
from edgegeo.runtime.embed import Embedder
from edgegeo.runtime.gallery_manifest import (
    DTYPES,
    JOURNAL_NAME,
    SEGMENTS,
    GalleryInfo,
    Journal,
    SegmentEntry,
    write_sealed,
)
from edgegeo.runtime.gallery_rows import (
    DIGEST_BYTES,
    DUPLICATES,
    Drawn,
    Origin,
    Row,
    Skipped,
    checked_row,
    content,
    identity,
)
from edgegeo.runtime.gallery_segment import SEGMENT_ROWS, Block, Segment, Stack, copy_rows, sync_segment, write_segment
from edgegeo.runtime.gallery_standing import Standing
from edgegeo.runtime.gallery_writing import pending
from edgegeo.runtime.image import ImageLimits, open_image
from edgegeo.runtime.pictures import Picture, prepare_picture

THUMB_QUALITY = 90


@dataclass(frozen=True)
class IntakeSettings:
    """How tiles are taken in."""

    batch: int = 16
    """Pictures a call of the model."""
    dtype: str = "float32"
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


class _Opened(NamedTuple):
    """A tile whose picture was read."""

    picture: Picture
    thumb: bytes
    content: bytes


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
    ) -> None:  # fmt: skip
        self.skipped: list[Skipped] = []
        self.samples: dict[int, Picture] = {}
        """A few of the taken tiles by their number among them, to be embedded again as a proof."""
        self.resumed = 0
        """Tiles that an earlier run had embedded."""
        self._path, self._embedder, self._settings = path, embedder, settings
        self._standing, self._replacing = standing, replacing
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
        self._seen = 0

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
        with ThreadPoolExecutor(self._embedder.model.threads) as pool:
            while chunk := list(islice(stream, max(1, self._settings.batch))):
                self._add(chunk, pool)
                waited = time.monotonic() - self._written
                if len(self._buffer.ids) >= self._settings.part_rows or waited >= self._settings.part_seconds:
                    self._flush()
                progress("tiles", self._seen, total)
        self._flush()

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

    def _add(self, chunk: list[Any], pool: ThreadPoolExecutor) -> None:
        rows: list[Row | Skipped] = []
        for item in chunk:
            rows.append(item if isinstance(item, Skipped) else self._checked(Row(*item)))
            self._seen += 1
        marks = {row.id: identity(row) for row in rows if isinstance(row, Row)}
        todo = [row for row in rows if isinstance(row, Row) and marks[row.id] not in self._finished]
        opened = dict(zip((row.id for row in todo), pool.map(self._open, todo), strict=True))
        ready: list[tuple[Row, _Opened]] = []
        for row in rows:
            if isinstance(row, Skipped):
                self.skipped.append(row)
                continue
            tile = opened.get(row.id)
            if isinstance(tile, Skipped):
                self.skipped.append(tile)
                continue
            stored, digest = (self._stored, tile.content) if tile else self._finished[marks[row.id]]
            if self._is_duplicate(row, digest):
                continue
            self._sample(row, tile)
            self._order.append(stored)
            if tile:
                ready.append((row, tile))
                self._stored += 1
            else:
                self.resumed += 1
        if ready:
            self._embed(ready, marks)

    def _embed(self, ready: list[tuple[Row, _Opened]], marks: dict[str, bytes]) -> None:
        model, role = self._embedder.model, self._embedder.role
        vectors = self._embedder.features(model.features(role.vision, [tile.picture for _, tile in ready]))
        for (row, tile), vector in zip(ready, vectors, strict=True):
            if not np.isfinite(vector).all():
                raise GalleryError(f"tile '{row.id}' has no finite embedding; run edgegeo verify on the bundle")
            self._buffer.ids.append(row.id.encode())
            self._buffer.positions.append((row.lat, row.lon))
            self._buffer.vectors.append(vector.astype(self._settings.dtype))
            self._buffer.thumbs.append(tile.thumb)
            self._buffer.digests.append(marks[row.id] + tile.content)

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
        row = checked_row(row, self._seen)
        first = self._ids.setdefault(row.id, self._seen)
        if first != self._seen:
            raise InputError(
                f"row {self._seen} (id {row.id!r:.60}): row {first} has the same id; give every tile its own"
            )
        if self._standing and not self._replacing and self._standing.has(row.id):
            raise InputError(
                f"row {self._seen} (id {row.id!r:.60}): the gallery has a tile of this id; give it another, or replace "
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

    def _sample(self, row: Row, tile: _Opened | None) -> None:
        # Rows 0, 1, 4, 16, ...: a few from everywhere, whatever the number of tiles.
        number = len(self._order)
        if number == 0 or math.log(number, 4).is_integer():
            again = tile or self._open(row)
            if isinstance(again, _Opened):
                self.samples[number] = again.picture

    def _open(self, row: Row) -> _Opened | Skipped:
        # In a worker: only the small results stay, not the opened picture.
        spec = self._embedder.model.bundle.manifest.image
        try:
            source = row.image.draw() if isinstance(row.image, Drawn) else row.image
            image, digest = open_image(source), content(source)
        except ImageError as error:
            return Skipped(row.id, str(error))
        return _Opened(prepare_picture(image, spec), thumbnail(image, max(128, min(_seen_edge(spec), 512))), digest)


def thumbnail(image: Image.Image, edge: int) -> bytes:
    """A JPEG of the picture with its longest side at most `edge`: what the model would see of it, kept small."""
    scale = min(1.0, edge / max(image.size))
    # A strip keeps both sides large enough to be opened again; the model squeezes it into a square anyway.
    size = [max(ImageLimits.min_side, round(side * scale)) for side in image.size]
    small = image.resize((size[0], size[1]), Image.Resampling.LANCZOS, reducing_gap=3.0)
    stream = BytesIO()
    small.save(stream, "JPEG", quality=THUMB_QUALITY, subsampling=0)
    return stream.getvalue()


def _seen_edge(spec: ImageSpec) -> int:
    """Side of the square that the model sees of a picture, in pixels."""
    return spec.size if spec.tokens else math.isqrt(spec.max_pixels)
