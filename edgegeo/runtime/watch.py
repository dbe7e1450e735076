"""Photos that appear in a folder, found by looking again and again: works on every disk and network share."""

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from edgegeo.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

_State = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds."""


class Watch:
    """A folder whose new photos are told one by one, each once.

    A file counts when two looks in a row found it unchanged and not empty, so that one still being written is waited
    for; a file that changes later counts again. The same bytes under another name, or written again, are one photo.
    Names that begin with a dot, other suffixes and subfolders are left alone. Photos that are there at the start are
    old.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.old = self._look()
        self._told: dict[Path, _State] = dict(self.old)
        self._before: dict[Path, _State] = {}
        self._seen: set[bytes] = set()

    def poll(self) -> list[Path]:
        """Photos that are complete and new since the last look, oldest first; InputError if the folder is gone."""
        now = self._look()
        self._told = {file: state for file, state in self._told.items() if file in now}
        ready = [
            file
            for file, state in now.items()
            if state[0] > 0 and self._told.get(file) != state and self._before.get(file) == state
        ]
        self._before = now
        out = []
        for file in sorted(ready, key=lambda file: (now[file][1], file.name)):
            self._told[file] = now[file]
            try:
                digest = hashlib.sha256(file.read_bytes()).digest()
            except OSError:  # gone or not readable at this moment: looked at again when it changes
                continue
            if digest not in self._seen:
                self._seen.add(digest)
                out.append(file)
        return out

    def photos(self, every_s: float = 0.5, sleep: Callable[[float], object] = time.sleep) -> Iterator[Path]:
        """New photos for ever, looking every `every_s` seconds."""
        while True:
            yield from self.poll()
            sleep(every_s)

    def _look(self) -> dict[Path, _State]:
        found: dict[Path, _State] = {}
        try:
            files = list(self.folder.iterdir())
        except OSError as error:
            raise InputError(f"can't watch {self.folder} ({error.strerror or error}); name a folder") from None
        for file in files:
            if file.name.startswith(".") or file.suffix.lower() not in SUFFIXES:
                continue
            try:
                if file.is_file():
                    state = file.stat()
                    found[file] = (state.st_size, state.st_mtime_ns)
            except OSError:  # gone between the two calls
                continue
        return found
