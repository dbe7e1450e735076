"""`edgegeo compile`: every component of a bundle to an engine that has been loaded and has passed the golden inputs."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from edgegeo.bundle import Bundle, open_bundle
from edgegeo.errors import BundleError, DeviceError, EdgegeoError, EngineError, InputError, VerificationError
from edgegeo.progress import Progress, silent
from edgegeo.runtime.engines.building import MB, Settings, build_plan
from edgegeo.runtime.engines.driver import Chip, Driver, find_driver
from edgegeo.runtime.engines.key import graph_hash, make_key
from edgegeo.runtime.engines.library import DIALECTS, MODULES, Library, find_library, require_dialect
from edgegeo.runtime.engines.session import EngineSession
from edgegeo.runtime.engines.shapes import Limits, Profile, profiles
from edgegeo.runtime.engines.store import EngineStore, Record, store_of
from edgegeo.runtime.model import Model
from edgegeo.runtime.verify import Check, verify_model

BUILD_FACTOR = 4.0
"""Memory of a build by the bytes of its graph and weights; a build of TensorRT takes 3 to 4 times them."""
OVERHEAD_MB = {"tensorrt": 600.0, "tensorrt-rtx": 300.0}
"""Of the process beside that: the library, and with TensorRT a CUDA context."""


@dataclass(frozen=True)
class Request:
    """What to compile, and how."""

    limits: Limits = field(default_factory=Limits)
    settings: Settings = field(default_factory=Settings)
    library: str = "auto"
    run: bool = True
    """Load every engine and compare its outputs; without, plans are only built (TensorRT-RTX, on any machine)."""
    rebuild: bool = False
    """Build although an engine under the same key exists."""
    force: bool = False
    """Build although memory will hardly suffice."""


@dataclass(frozen=True)
class Engine:
    """One engine of a report."""

    component: str
    precision: str
    mb: float
    """Of the plan."""
    weights_mb: float
    """Of the graph it was built from, weights included."""
    seconds: float
    """Of the build; 0 where the plan was there already."""
    why: str
    """Why it was built; "" where it was there already."""


@dataclass(frozen=True)
class CompileReport:
    """What `compile_bundle` did."""

    bundle: str
    folder: str
    library: str
    chip: str
    """"" where there was no device."""
    engines: tuple[Engine, ...]
    checks: tuple[Check, ...] = ()
    removed: int = 0
    """Stale plans removed."""
    need_mb: float = 0.0
    available_mb: float = 0.0

    @property
    def executed(self) -> bool:
        """Whether the engines were run and passed."""
        return bool(self.checks)


@dataclass
class _Work:
    """What the steps of one compilation share."""

    bundle: Bundle
    request: Request
    library: Library
    driver: Driver | None
    chip: Chip | None
    store: EngineStore
    records: dict[str, Record] = field(default_factory=dict)
    """By component."""
    sessions: dict[str, EngineSession] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Where the bundle lies."""
        return str(self.bundle.path.resolve())


def compile_bundle(
    bundle: Bundle, request: Request, available_mb: float, store: EngineStore | None = None, progress: Progress = silent
) -> CompileReport:
    """Build what is missing, load everything, run the golden inputs, and only then call the engines good.

    available_mb: memory that can be had, the kernel's MemAvailable. BundleError for a bundle of another target,
    DeviceError without library, device or memory, EngineError for a graph that is refused, VerificationError where
    the engines compute something else than the bundle says; those engines are removed.
    """
    if bundle.manifest.dialect not in DIALECTS:
        raise BundleError(
            f"{bundle.path} was built for {bundle.manifest.target}; export it again with --target tensorrt"
        )
    library = find_library(request.library)
    require_dialect(library, bundle.manifest.dialect)
    driver = _driver(library, request)
    need = need_mb(bundle, library)
    if need > available_mb and not request.force:
        raise DeviceError(
            f"building the largest engine takes about {need:,.0f} MB and {available_mb:,.0f} MB are available; stop "
            "other programs, add swap, export at a lower precision, or try all the same with --force"
        )
    chip = driver.chip() if driver is not None else None
    work = _Work(bundle, request, library, driver, chip, store or store_of(bundle))
    with work.store.locked():
        engines = [_engine(work, name, progress) for name in bundle.manifest.components]
        checks = _check(work, progress) if driver is not None else ()
        keys = {name: record.key for name, record in work.records.items()}
        removed = len(work.store.drop_stale(keys, partial(_used_elsewhere, work)))
    return CompileReport(
        str(bundle.path), str(work.store.folder), library.name, str(chip or ""), tuple(engines), checks, removed,
        need, available_mb,
    )  # fmt: skip


def need_mb(bundle: Bundle, library: Library) -> float:
    """Memory that building the largest engine takes, about."""
    largest = max(map(bundle.graph_bytes, bundle.manifest.components)) / MB
    return BUILD_FACTOR * largest + OVERHEAD_MB[library.kind]


def open_engine(bundle: Bundle, component: str, store: EngineStore | None = None) -> EngineSession:
    """The engine of a component that was compiled and checked on this machine; EngineError says what is wrong else."""
    driver, plans = find_driver(), store or store_of(bundle)
    library, record = _usable(bundle, component, plans, driver.chip())
    return _load(plans, record, library, driver)


def has_engines(bundle: Bundle, components: Sequence[str]) -> bool:
    """Whether engines of all these components could be opened here now."""
    try:
        chip, plans = find_driver().chip(), store_of(bundle)
        for name in components:
            _usable(bundle, name, plans, chip)
    except EdgegeoError:
        return False
    return True


def _usable(bundle: Bundle, component: str, plans: EngineStore, chip: Chip) -> tuple[Library, Record]:
    """A checked plan and the library it is for: of two that are installed, the one that has one."""
    first = find_library()
    try:
        return first, plans.usable(component, make_key(bundle, component, first, chip, (), ""), str(chip))
    except EngineError:
        for kind in MODULES:
            with suppress(EngineError, DeviceError):
                library = find_library(kind)
                return library, plans.usable(component, make_key(bundle, component, library, chip, (), ""), str(chip))
        raise


def _driver(library: Library, request: Request) -> Driver | None:
    if not request.run:
        if not library.portable:
            raise InputError(f"{library.name} builds for the device it runs on; leave --no-run out, or use --library "
                             "tensorrt-rtx")  # fmt: skip
        return None
    here = f"build without checking by --no-run, which {library.name} can do here"
    return find_driver(here if library.portable else "compile on the machine that will run the engines")


def _engine(work: _Work, name: str, progress: Progress) -> Engine:
    """Find or build the engine of a component, and load it where there is a device."""
    bundle, store = work.bundle, work.store
    ranges = profiles(bundle, name, work.request.limits)
    key = make_key(bundle, name, work.library, work.chip, ranges, work.request.settings.flags)
    record, why, seconds = store.find(name, key), "", 0.0
    if record is None or work.request.rebuild:
        why = "asked for" if record is not None else store.why_not(name, key)
        record, seconds = _build(work, name, ranges, progress)
    elif fault := _fault(work, record):
        store.drop(record)
        why = fault
        record, seconds = _build(work, name, ranges, progress)
    if work.driver is not None and name not in work.sessions:
        work.sessions[name] = _load(store, record, work.library, work.driver)
    work.records[name] = store.claim(record, work.path)
    part = bundle.manifest.components[name]
    return Engine(name, part.precision, record.bytes / MB, bundle.graph_bytes(name) / MB, seconds, why)


def _fault(work: _Work, record: Record) -> str:
    """Why a plan that is there can't be used; "" where it can, and then it is loaded."""
    try:
        if work.driver is not None:
            work.sessions[record.component] = _load(work.store, record, work.library, work.driver)
        else:
            with work.store.plan(record):
                pass
    except EngineError as error:
        return str(error)
    return ""


def _used_elsewhere(work: _Work, record: Record) -> bool:
    """Whether another bundle of this name still stands where it was compiled from, with the graph of a plan."""
    for path in record.bundles:
        if path == work.path:
            continue
        with suppress(BundleError):
            other = open_bundle(path, check_hashes=False)
            parts = other.manifest.components
            if record.component in parts and graph_hash(other, record.component) == record.key.graph:
                return True
    return False


def _build(work: _Work, name: str, ranges: tuple[Profile, ...], progress: Progress) -> tuple[Record, float]:
    started = time.monotonic()
    progress(f"compile {name}", 0, 1)
    if work.driver is not None:
        work.driver.enter()
    settings = work.request.settings
    built = build_plan(work.library, work.bundle.component(name), ranges, settings, work.store.timings)
    key = make_key(work.bundle, name, work.library, work.chip, ranges, settings.flags)
    before = work.store.find(name, key)
    others = () if before is None else before.bundles
    record = work.store.write(name, key, built, ranges, tuple(dict.fromkeys((*others, work.path))))
    progress(f"compile {name}", 1, 1)
    return record, time.monotonic() - started


def _load(store: EngineStore, record: Record, library: Library, driver: Driver) -> EngineSession:
    with store.plan(record) as plan:
        return EngineSession(library, driver, plan, record.dims, record.profiles)


def _check(work: _Work, progress: Progress) -> tuple[Check, ...]:
    """Run the golden inputs through the engines, and note that they passed; else remove them: VerificationError."""
    progress("run the golden inputs", 0, 1)
    model = Model(work.bundle, provider="tensorrt")
    for name, session in work.sessions.items():
        model.adopt(name, session)
    report = verify_model(model)
    progress("run the golden inputs", 1, 1)
    if not report.passed:
        for record in work.records.values():
            work.store.drop(record)
        wrong = ", ".join(f"{check.name} {check.worst:.4g}, allowed {check.limit:g}" for check in report.checks
                          if not check.passed)  # fmt: skip
        raise VerificationError(
            f"the engines compute something else than {work.bundle.path} says ({wrong}); they were removed. Export at "
            "a higher precision, or report this with the output of edgegeo doctor --json"
        )
    for name, record in work.records.items():
        work.records[name] = work.store.mark(record, str(work.chip))
    return report.checks
