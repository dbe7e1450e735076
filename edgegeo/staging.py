"""Folders filled under a temporary name beside the place they are meant for, and moved there whole.

Whoever fills one, or moves an older one out of the way, holds a lock (flock) on the folder itself, which ends with the
process. One that nobody holds was left by a process that was killed: the next that stages for the same place clears it
up.
"""

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from edgegeo.errors import BundleError


@contextmanager
def staging(target: str | Path) -> Iterator[Path]:
    """A temporary folder beside `target` to build a bundle in; removed unless it was moved away."""
    target = Path(target).absolute()
    with ExitStack() as held:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _clear(target)
            folder = _make(target, held)
        except OSError as error:
            raise BundleError(f"can't write beside {target} ({error.strerror}); choose another place with -o") from None
        try:
            yield folder
        except OSError as error:
            raise BundleError(
                f"writing the bundle failed ({error.strerror or error}); free some space or choose another place with "
                f"-o. What stood at {target} before is unchanged"
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def move_in(folder: Path, target: Path) -> None:
    """Move a folder to `target`. What stood there goes once that is done, and is put back where it fails."""
    if not target.exists():
        os.rename(folder, target)
        sync(target.parent)
        return
    retired = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
    with ExitStack() as held:
        with suppress(OSError):
            _hold(target, held)
        os.rename(target, retired)
        try:
            os.rename(folder, target)
        except OSError:
            os.rename(retired, target)
            raise
        sync(target.parent)
        shutil.rmtree(retired, ignore_errors=True)


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(target: Path, held: ExitStack) -> Path:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
        try:
            _hold(folder, held)
        except (BlockingIOError, FileNotFoundError):  # another process cleared it up before it was held
            continue
        except OSError:  # a file system without locks, on which nothing is cleared up either
            return folder
        if folder.is_dir():
            return folder


def _hold(folder: Path, held: ExitStack) -> None:
    """Lock a folder until `held` is left; BlockingIOError where another has it, OSError where locks can't be had."""
    import fcntl  # not on Windows, where bundles can be read all the same

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    held.callback(os.close, descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _clear(target: Path) -> None:
    """Remove what killed processes left; what stood at `target` before goes back where nothing took its place."""
    ours = re.compile(rf"\.{re.escape(target.name)}\.[a-z0-9_]{{8}}\.(part|old)")
    for left in [one for one in target.parent.iterdir() if ours.fullmatch(one.name)]:
        with suppress(OSError), ExitStack() as held:
            _hold(left, held)
            if left.suffix == ".old" and not os.path.lexists(target):
                os.rename(left, target)
            else:
                shutil.rmtree(left)
