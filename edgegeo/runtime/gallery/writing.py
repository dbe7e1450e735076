"""The one writer of a gallery: its lock, its commits, and the removal of what no version refers to."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import FileEntry, sha256_of, sync
from edgegeo.errors import GalleryBusyError, GalleryError
from edgegeo.runtime.gallery.manifest import (
    INFO_NAME,
    JOURNAL_NAME,
    LOCK_NAME,
    SEGMENTS,
    DeletedEntry,
    GalleryInfo,
    Journal,
    read_info,
    read_journal,
    write_sealed,
)
from edgegeo.runtime.gallery.segment import SEGMENT_NAME, sync_segment

_OWN = {INFO_NAME, JOURNAL_NAME, SEGMENTS, LOCK_NAME, f".{INFO_NAME}.part", f".{JOURNAL_NAME}.part"}
_VERSION_1 = ("vectors.npy", "positions.npy", "ids.bin", "ids.offsets.npy", "thumbs.bin", "thumbs.offsets.npy")


@contextmanager
def writing(path: Path, create: bool = False) -> Iterator[None]:
    """Hold a gallery's lock; GalleryBusyError where another process or thread holds it.

    `create` makes the folder, and leaves none behind where nothing was finished in it. What the system refuses
    (a full disk, a folder that can't be written) becomes a GalleryError; the version that stood there stays.
    """
    made = create and not path.exists()
    try:
        if create:
            path.mkdir(parents=True, exist_ok=True)
        else:
            read_info(path)  # nothing is left in a folder that is no gallery
        lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        remedy = "choose another place with -o, or mend its permissions" if create else "mend that, or change a copy"
        raise GalleryError(f"can't write to {path} ({error.strerror or error}); {remedy}") from None
    try:
        _hold(path, lock)
        try:
            yield
        except OSError as error:
            raise GalleryError(
                f"writing the gallery {path} failed ({error.strerror or error}); free some space or mend its "
                "permissions, then give the same command again. What stood there before is unchanged"
            ) from error
        finally:
            # What can't be removed, or belongs to a damaged file, is left: it harms nobody.
            with suppress(GalleryError, OSError):
                _tidy(path, made)
    finally:
        os.close(lock)


def check_place(path: Path) -> None:
    """GalleryError where something stands that a gallery must not replace: long work asks before it begins."""
    try:
        names = {file.name for file in path.iterdir()} if path.is_dir() else set()
        begun = LOCK_NAME in names and names <= _OWN
        empty = not names and (path.is_dir() or not path.exists())
        if not (empty or begun or names & {INFO_NAME, JOURNAL_NAME}):
            raise GalleryError(f"{path} exists and is not a gallery; choose another place with -o")
    except OSError as error:
        raise GalleryError(f"{path} can't be read ({error.strerror or error}); choose another place with -o") from None


def write_deleted(path: Path, rows: NDArray[np.int64], version: int) -> DeletedEntry | None:
    """The file of a version's deleted rows; None where there are none."""
    if len(rows) == 0:
        return None
    file = path / f"deleted-{version:06d}-{os.urandom(4).hex()}.npy"
    with file.open("wb") as stream:
        np.save(stream, np.sort(rows))
        stream.flush()
        os.fsync(stream.fileno())
    return DeletedEntry(file.name, len(rows), FileEntry(file.stat().st_size, sha256_of(file)))


def commit(path: Path, info: GalleryInfo, before: GalleryInfo | None) -> None:
    """Make `info` the gallery's version in place of `before`; the end of `writing` removes what only that needed."""
    standing = before.segments if before else ()
    for segment in info.segments:
        if segment not in standing:
            sync_segment(path, segment)
    sync(path)
    write_sealed(path / INFO_NAME, info)


def pending(path: Path, info: GalleryInfo | None) -> Journal | None:
    """unfinished.json; None where there is none, or the gallery's version holds its tiles already."""
    journal = read_journal(path)
    done = journal is not None and info is not None and journal.token == info.absorbed
    return None if done else journal


def _hold(path: Path, lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A writer that gave up may have removed the folder meanwhile.
        held = os.path.samestat(os.fstat(lock), os.stat(path / LOCK_NAME))
    except OSError:
        held = False
    if not held:
        raise GalleryBusyError(f"another process is writing to the gallery {path}; try again when it is done")


def _tidy(path: Path, made: bool) -> None:
    """Remove the files of earlier versions and of interrupted work; readers keep what they have mapped."""
    info = read_info(path) if (path / INFO_NAME).exists() else None
    journal = pending(path, info)
    if journal is None:
        (path / JOURNAL_NAME).unlink(missing_ok=True)
    kept = {segment.name for holder in (info, journal) if holder for segment in holder.segments}
    for folder in (path / SEGMENTS).glob("*"):
        if folder.name not in kept and SEGMENT_NAME.fullmatch(folder.name):
            shutil.rmtree(folder, ignore_errors=True)
    if info is not None:
        stale = [file for file in path.glob("deleted-*.npy") if not info.deleted or file.name != info.deleted.name]
        for file in (*stale, *(path / name for name in _VERSION_1)):
            file.unlink(missing_ok=True)
    elif journal is None:
        # Nothing was finished here.
        if (path / SEGMENTS).exists():
            (path / SEGMENTS).rmdir()
        (path / LOCK_NAME).unlink()
        if made:
            path.rmdir()
