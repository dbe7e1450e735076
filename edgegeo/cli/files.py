"""Files that verbs write: whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from edgegeo.errors import InputError


def write_whole(target: Path, write: Callable[[Path], object]) -> Path:
    """Have `write(draft)` fill a draft beside `target`, then put it in place; what stood there survives a failure.

    The draft keeps the target's suffix, since Pillow and numpy choose the format by it.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(prefix=f".{target.stem}.", suffix=target.suffix, dir=target.parent)
    except OSError as error:
        raise InputError(f"can't write {target} ({error.strerror or error}); choose another place with -o") from None
    os.close(number)
    draft = Path(name)
    try:
        write(draft)
        draft.chmod(0o644)
        os.replace(draft, target)
    except OSError as error:
        raise InputError(
            f"can't write {target} ({error.strerror or error}); free some space or choose another place"
        ) from None
    finally:
        draft.unlink(missing_ok=True)
    return target


def check_target(target: Path | None) -> None:
    """Find out now, not after hours of work, that a file can't be written."""
    if target is None:
        return
    near = next((parent for parent in target.absolute().parents if parent.exists()), target.absolute().parent)
    if target.is_dir() or not near.is_dir() or not os.access(near, os.W_OK):
        raise InputError(f"can't write {target}; name a file in a folder that can be written to")


def check_suffix(target: Path, suffixes: tuple[str, ...]) -> None:
    """Refuse, before any work, a file whose suffix names no format that can be written."""
    if target.suffix.lower() not in suffixes:
        raise InputError(f"{target} must end in one of {', '.join(suffixes)}: the suffix chooses the format")
