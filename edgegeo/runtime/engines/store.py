"""Plans on disk: one folder a bundle, one plan and one record a component and key.

A record is written after its plan, both under temporary names that are synced and renamed, so a plan without a record
is none. One process writes at a time.
"""

import fcntl
import json
import mmap
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgegeo.bundle import Bundle, sha256_of, sync
from edgegeo.errors import EngineError
from edgegeo.home import data_home
from edgegeo.runtime.engines.building import Built
from edgegeo.runtime.engines.key import EngineKey
from edgegeo.runtime.engines.shapes import Profile
from edgegeo.schema import SchemaFault, parse, to_plain

VERSION = 1
LOCK_NAME = ".lock"
TIMINGS_NAME = "timings.bin"
_BETWEEN = " x "


@dataclass(frozen=True)
class Record:
    """What is known of a plan; a JSON file beside it."""

    version: int
    component: str
    key: EngineKey
    bytes: int
    sha256: str
    inputs: dict[str, str]
    """Input name -> its axes, as "batch x sequence x 64"."""
    profiles: tuple[Profile, ...]
    passed: str = ""
    """The device on which its outputs were compared with the bundle's golden ones; "" where they never were."""
    bundles: tuple[str, ...] = ()
    """Paths of the bundles that it was compiled for: several may have one name, and share a graph."""

    @property
    def stem(self) -> str:
        """Name of its files, without ending."""
        return f"{_plain(self.component)}-{self.key.digest[:16]}"

    @property
    def dims(self) -> dict[str, tuple[int | str, ...]]:
        """Input name -> its axes: sizes, or names of free ones."""
        split = {name: axes.split(_BETWEEN) if axes else [] for name, axes in self.inputs.items()}
        return {name: tuple(int(axis) if axis.isdigit() else axis for axis in axes) for name, axes in split.items()}


class EngineStore:
    """The plans of one bundle."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def timings(self) -> Path:
        """File of the timing cache."""
        return self.folder / TIMINGS_NAME

    def records(self, component: str = "") -> list[Record]:
        """Readable records, of a component or of all; damaged ones are as good as none."""
        found = []
        for file in sorted(self.folder.glob("*.json")):
            try:
                one = parse(Record, json.loads(file.read_text(encoding="utf-8")), file.name)
            except (OSError, ValueError, SchemaFault):
                continue
            if one.version == VERSION and component in ("", one.component) and file.stem == one.stem:
                found.append(one)
        return found

    def find(self, component: str, key: EngineKey) -> Record | None:
        """The record under exactly this key."""
        return next((one for one in self.records(component) if one.key == key), None)

    def usable(self, component: str, key: EngineKey, chip: str) -> Record:
        """A plan that passed its check on this chip and fits graph and library, for whatever shapes; EngineError."""
        records = self.records(component)
        fitting = [one for one in records if one.key.same_machine(key)]
        passed = [one for one in fitting if one.passed == chip]
        if passed:
            return max(passed, key=lambda one: (self.folder / f"{one.stem}.json").stat().st_mtime_ns)
        if fitting:
            raise EngineError(
                f"the engine of '{component}' was built but never passed its check on {chip}; run: edgegeo compile"
            )
        raise EngineError(f"{self.why_not(component, key)}; run: edgegeo compile")

    def why_not(self, component: str, key: EngineKey) -> str:
        """Why no plan of a component is under this key: there is none, or what differs in the one nearest to it."""
        records = self.records(component)
        if not records:
            return f"there is no engine of '{component}' in {self.folder}"
        nearest = min((one.key.differences(key) for one in records), key=len)
        return f"the engine of '{component}' was built for something else: {', '.join(nearest)}"

    @contextmanager
    def plan(self, record: Record) -> Iterator[mmap.mmap]:
        """The bytes of a plan, mapped; EngineError where they are missing, cut off or altered."""
        file = self.folder / f"{record.stem}.plan"
        try:
            if (size := file.stat().st_size) != record.bytes:
                raise EngineError(f"{file} has {size} bytes instead of {record.bytes}: it was cut off; {_AGAIN}")
            if sha256_of(file) != record.sha256:
                raise EngineError(f"{file} differs from its recorded hash: it was damaged or altered; {_AGAIN}")
            with file.open("rb") as stream:
                mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise EngineError(f"{file} can't be read ({error}); {_AGAIN}") from None
        with mapped:
            yield mapped

    def write(
        self, component: str, key: EngineKey, built: Built, profiles: tuple[Profile, ...], bundles: tuple[str, ...]
    ) -> Record:
        """Keep a plan, under `locked`."""
        inputs = {name: _BETWEEN.join(map(str, axes)) for name, axes in built.dims.items()}
        made = Record(VERSION, component, key, len(built.plan), "", inputs, profiles, bundles=bundles)
        part = self._write(f"{made.stem}.plan", built.plan)
        made = replace(made, sha256=sha256_of(part))
        os.rename(part, self.folder / f"{made.stem}.plan")
        self._record(made)
        return made

    def mark(self, record: Record, chip: str) -> Record:
        """Note that a plan passed its check on a device, under `locked`."""
        made = replace(record, passed=chip)
        self._record(made)
        return made

    def claim(self, record: Record, bundle: str) -> Record:
        """Note that a plan is for this bundle too, under `locked`."""
        if bundle in record.bundles:
            return record
        made = replace(record, bundles=(*record.bundles, bundle))
        self._record(made)
        return made

    def drop(self, record: Record) -> None:
        """Remove a plan, under `locked`: the record first."""
        for ending in ("json", "plan"):
            (self.folder / f"{record.stem}.{ending}").unlink(missing_ok=True)

    def drop_stale(self, keys: Mapping[str, EngineKey], used: Callable[[Record], bool]) -> list[Record]:
        """Remove, under `locked`, plans that none here can use any more: of another library, or of a graph that is no
        component's now and that no other bundle of this name has, as `used` tells. keys: by component."""
        stale = []
        for one in self.records():
            key = keys.get(one.component, next(iter(keys.values())))
            here = (one.key.chip, one.key.system) == (key.chip, key.system)
            replaced = one.component not in keys or one.key.graph != key.graph
            if here and (one.key.library != key.library or (replaced and not used(one))):
                stale.append(one)
        for one in stale:
            self.drop(one)
        known = {one.stem for one in self.records()}
        for file in [*self.folder.glob("*.plan"), *self.folder.glob(".*.part")]:
            if file.suffix == ".part" or file.stem not in known:
                file.unlink(missing_ok=True)
        return stale

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock; EngineError where another process compiles, or the folder can't be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise EngineError(
                f"can't write to {self.folder} ({error.strerror}); mend its permissions, or set EDGEGEO_HOME"
            ) from None
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise EngineError(f"another process compiles into {self.folder}; wait for it to end") from None
            try:
                yield
            except OSError as error:
                raise EngineError(
                    f"writing to {self.folder} failed ({error.strerror or error}); free some space, then compile again"
                ) from error
        finally:
            os.close(lock)

    def _record(self, record: Record) -> None:
        text = json.dumps(to_plain(record), indent=1) + "\n"
        os.rename(self._write(f"{record.stem}.json", text.encode()), self.folder / f"{record.stem}.json")
        sync(self.folder)

    def _write(self, name: str, content: Any) -> Path:
        part = self.folder / f".{name}.part"
        try:
            with part.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError:
            part.unlink(missing_ok=True)
            raise
        return part


_AGAIN = "run: edgegeo compile"


def store_of(bundle: Bundle) -> EngineStore:
    """The store of a bundle, under the data home: bundles themselves are never written to."""
    return EngineStore(data_home() / "engines" / _plain(bundle.manifest.name))


def _plain(name: str) -> str:
    """A name as part of a file name: manifests may hold anything."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name) or "_"
