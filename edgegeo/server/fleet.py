"""The bundles being served, by name: opened when first asked for, swapped without dropping a request."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from anyio.to_thread import run_sync

from edgegeo.bundle import open_bundle
from edgegeo.errors import ServerError
from edgegeo.home import built_gallery
from edgegeo.server import logs
from edgegeo.server.cache import EmbeddingCache
from edgegeo.server.engine import Engine, known, offered
from edgegeo.server.faults import Refusal, retry_after
from edgegeo.server.memory import give_back, resident_bytes
from edgegeo.server.metrics import Loaded, Metrics
from edgegeo.server.scheduler import Scheduler
from edgegeo.server.serving import Serving
from edgegeo.server.settings import ServerSettings
from edgegeo.server.tasks import Tasks
from edgegeo.server.warm_up import heartbeat, warm_up

NO_MODEL = "the model named is not being served; GET /v1/models lists what is"
NO_ROOM = "there is no memory for this model beside those in use; try again shortly, or use one that is loaded"
RETRY_AFTER_S = 5
_SETTLE_S = 0.1


@dataclass(frozen=True)
class Card:
    """One bundle for the list of models."""

    name: str
    family: str
    roles: tuple[str, ...]
    loaded: bool


@dataclass(frozen=True)
class ReloadReport:
    """What a reload did."""

    model: str
    changed: bool
    """Whether bundle or gallery differ from what was served before."""
    fingerprint: str
    gallery_tiles: int | None
    milliseconds: float


@dataclass(eq=False)
class _Held:
    """An opened bundle, and how many use it."""

    serving: Serving
    users: int = 0
    retired: bool = False
    """Nobody new gets it; it ends with its last user."""


@dataclass(eq=False)
class _Berth:
    """The place of one bundle in the fleet, whether it is open or not."""

    path: Path
    gallery: Path | str | None
    name: str
    family: str
    roles: tuple[str, ...]
    memory: int
    """Bytes that it takes: of its files until it was measured."""
    held: _Held | None = None
    used: float = 0.0


class Fleet:
    """Opens, warms, swaps and retires bundles. For one event loop.

    The first bundle is the default and stays open; others are opened on demand, and while the memory budget has no
    room, the one that nobody has used for longest goes. A bundle in use is never closed.
    """

    def __init__(self, engine: Engine, settings: ServerSettings, metrics: Metrics) -> None:
        """`engine`: the first bundle of the settings, opened. Raises BundleError and ServerError for the others."""
        self.scheduler = Scheduler(metrics, settings.max_batch, settings.batch_wait_ms)
        self._settings = settings
        self._metrics = metrics
        self._cache = EmbeddingCache(settings.cache_mb * 2**20, metrics)
        first = _berth(settings.bundles[0], settings.gallery)
        first.held = _Held(Serving(engine, self.scheduler, self._cache, metrics))
        self._berths = [first, *(_berth(path, built_gallery(path)) for path in settings.bundles[1:])]
        self._check_names([berth.name for berth in self._berths])
        # One bundle at a time is opened or swapped, so that what fits beside the others is known.
        self._changing = asyncio.Lock()
        self._tasks = Tasks()
        metrics.watch_queue(lambda: self.scheduler.waiting)
        metrics.watch_bundles(self._loaded)

    async def start(self) -> None:
        """Warm up the default bundle."""
        berth = self._berths[0]
        assert berth.held is not None
        before = resident_bytes()
        engine, most = berth.held.serving.engine, self._settings.max_batch
        seconds, _ = await self.scheduler.run("warm_up", warm_up, engine, most)
        berth.memory = max(berth.memory, resident_bytes() - before)
        budget = self._settings.memory_budget_mb
        if budget is not None and berth.memory > budget * 2**20:
            raise ServerError(
                f"the bundle '{berth.name}' takes {berth.memory / 2**20:.0f} MB, more than the memory budget of "
                f"{budget} MB; allow more, or serve a smaller one"
            )
        logs.event("warm", {"bundle": berth.name, **{name: round(spent, 3) for name, spent in seconds.items()}})

    async def heartbeat(self) -> None:
        """A trial answer of the default bundle, through the same line as everything else."""
        async with self.use() as serving:
            await self.scheduler.run("heartbeat", heartbeat, serving.engine)

    def cards(self) -> list[Card]:
        """Every bundle that can be named, the default first."""
        return [Card(berth.name, berth.family, berth.roles, berth.held is not None) for berth in self._berths]

    @asynccontextmanager
    async def use(self, model: str | None = None) -> AsyncIterator[Serving]:
        """The bundle named (None, "": the default), open for as long as it is held.

        Raises Refusal 404 for another name, 503 where memory has no room for it; BundleError, GalleryError.
        """
        berth = self._find(model)
        held = berth.held
        if held is None:
            # Opening a bundle may take longer than a request may, and goes on when the caller leaves.
            held = await self._tasks.run(self._opened(berth))
        held.users += 1
        berth.used = time.monotonic()
        try:
            yield held.serving
        finally:
            held.users -= 1
            if held.retired and not held.users:
                self._free()

    async def reload(self, model: str | None = None) -> ReloadReport:
        """Open the bundle from disk once more and serve it in place of the old one, which ends with its last user.

        The new one is hashed, answers its golden inputs and is warm before anyone gets it. If any of that fails, the
        error is raised and the old one keeps serving. Raises as `use`.
        """
        return await self._tasks.run(self._reloaded(self._find(model)))

    async def refresh_gallery(self, model: str | None = None) -> None:
        """Serve the gallery as it is on disk now, after tiles were added or deleted; GalleryError as from `open`."""
        await self._tasks.run(self._refreshed(self._find(model)))

    async def close(self) -> None:
        """Turn away what waits and end the model thread."""
        self._tasks.cancel()
        await run_sync(self.scheduler.close)

    def _check_names(self, names: list[str]) -> None:
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ServerError(f"two bundles are named '{twice[0]}', so requests can't tell them apart; leave one out")

    def _find(self, model: str | None) -> _Berth:
        for berth in self._berths:
            if not model or model == berth.name:
                return berth
        raise Refusal(404, "model_not_found", NO_MODEL, "model")

    async def _opened(self, berth: _Berth) -> _Held:
        async with self._changing:
            if berth.held is None:
                self._make_room(berth.memory)
                serving = await self._load(berth, prove=False)
                self._make_room(berth.memory)  # once more, now that it is measured
                berth.held = _Held(serving)
            return berth.held

    async def _reloaded(self, berth: _Berth) -> ReloadReport:
        begun = time.perf_counter()
        try:
            async with self._changing:
                before = berth.held and _facts(berth.held.serving.engine)
                self._make_room(berth.memory, besides=berth)
                serving = await self._load(berth, prove=True)
                self._check_names([other.name for other in self._berths if other is not berth] + [serving.engine.name])
                self._swap(berth, serving)
        except Exception:
            self._metrics.reloaded(done=False)
            raise
        self._metrics.reloaded(done=True)
        engine = serving.engine
        berth.name, berth.family, berth.roles = engine.name, engine.family, tuple(engine.roles)
        tiles = None if engine.gallery is None else len(engine.gallery)
        spent = (time.perf_counter() - begun) * 1000.0
        return ReloadReport(berth.name, before != _facts(engine), engine.fingerprint, tiles, spent)

    async def _refreshed(self, berth: _Berth) -> None:
        async with self._changing:
            if berth.held is None:
                return
            old = berth.held.serving.engine
            engine = await run_sync(old.renewed)
            if engine is not old:
                self._swap(berth, Serving(engine, self.scheduler, self._cache, self._metrics))

    async def _load(self, berth: _Berth, prove: bool) -> Serving:
        gallery = berth.gallery or built_gallery(berth.path)  # one may have been built since the start

        def load() -> tuple[Engine, int]:
            before = resident_bytes()
            engine = Engine.load(berth.path, gallery, self._settings)
            if prove:
                engine.prove()
            warm_up(engine, self._settings.max_batch)
            return engine, max(resident_bytes() - before, engine.bytes)

        # Not on the model thread: nobody else uses this bundle yet, and requests to the others go on meanwhile.
        try:
            engine, berth.memory = await run_sync(load)
        except Exception as error:
            self._free()
            if (short := known(error)) is not error:
                raise short from error
            raise
        return Serving(engine, self.scheduler, self._cache, self._metrics)

    def _swap(self, berth: _Berth, serving: Serving) -> None:
        old, berth.held = berth.held, _Held(serving)
        if old is not None:
            old.retired = True
            if not old.users:
                self._free()

    def _make_room(self, need: int, besides: _Berth | None = None) -> None:
        """Retire what nobody uses until `need` bytes fit into the budget; Refusal where they can't."""
        budget = self._settings.memory_budget_mb
        while budget is not None and need + sum(b.memory for b in self._berths if b.held) > budget * 2**20:
            idle = [b for b in self._berths[1:] if b.held and not b.held.users and b is not besides]
            if not idle:
                self._free()
                raise Refusal(503, "out_of_memory", NO_ROOM, headers=retry_after(RETRY_AFTER_S))
            oldest = min(idle, key=lambda b: b.used)
            logs.event("retired", {"bundle": oldest.name})
            oldest.held = None
            self._free()

    def _free(self) -> None:
        """Give the memory of what was retired back to the system, once the last reference to it is gone."""

        async def later() -> None:
            await asyncio.sleep(_SETTLE_S)
            await run_sync(give_back)

        self._tasks.start(later())

    def _loaded(self) -> list[Loaded]:
        return [
            _shown(berth.held.serving.engine, berth.memory) for berth in list(self._berths) if berth.held is not None
        ]


def _berth(path: Path, gallery: Path | str | None) -> _Berth:
    bundle = open_bundle(path, check_hashes=False)
    manifest = bundle.manifest
    return _Berth(path, gallery, manifest.name, manifest.family, tuple(offered(manifest)), bundle.bytes)


def _facts(engine: Engine) -> tuple[object, ...]:
    gallery = engine.gallery
    return engine.fingerprint, None if gallery is None else gallery.info


def _shown(engine: Engine, memory: int) -> Loaded:
    precision = "+".join(sorted(set(engine.precision.values())))
    tiles = 0 if engine.gallery is None else len(engine.gallery)
    return Loaded(engine.name, precision, ",".join(engine.providers), engine.fingerprint, memory, tiles)
