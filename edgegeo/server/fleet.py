"""The bundles being served, by name: opened when first asked for, swapped without dropping a request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from anyio.to_thread import run_sync

from edgegeo.server import logs
from edgegeo.server.cache import EmbeddingCache
from edgegeo.server.engine import Engine
from edgegeo.server.faults import Refusal
from edgegeo.server.metrics import Loaded, Metrics
from edgegeo.server.scheduler import Scheduler
from edgegeo.server.serving import Serving
from edgegeo.server.settings import ServerSettings
from edgegeo.server.warm_up import heartbeat, warm_up

NO_MODEL = "the model named is not being served; GET /v1/models lists what is"


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


class Fleet:
    """Opens, warms, swaps and retires bundles. For one event loop."""

    def __init__(self, engine: Engine, settings: ServerSettings, metrics: Metrics) -> None:
        self.default = engine.name
        self.scheduler = Scheduler(metrics, settings.max_batch, settings.batch_wait_ms)
        self._settings = settings
        self._metrics = metrics
        self._cache = EmbeddingCache(settings.cache_mb * 2**20, metrics)
        self._serving = Serving(engine, self.scheduler, self._cache, metrics)

    async def start(self) -> None:
        """Warm up the default bundle and tell the metrics what is served."""
        seconds, _ = await self.scheduler.run("warm_up", warm_up, self._serving.engine, self._settings.max_batch)
        logs.event("warm", {"bundle": self.default, **{name: round(spent, 3) for name, spent in seconds.items()}})
        self._metrics.watch_queue(lambda: self.scheduler.waiting)
        self._metrics.watch_bundles(lambda: [_loaded(self._serving.engine)])

    async def heartbeat(self) -> None:
        """A trial answer of the default bundle, through the same line as everything else."""
        async with self.use() as serving:
            await self.scheduler.run("heartbeat", heartbeat, serving.engine)

    def cards(self) -> list[Card]:
        """Every bundle that can be named, the default first."""
        engine = self._serving.engine
        return [Card(engine.name, engine.family, tuple(engine.roles), True)]

    @asynccontextmanager
    async def use(self, model: str | None = None) -> AsyncIterator[Serving]:
        """The bundle named (None, "": the default), open for as long as it is held; Refusal 404 for another name."""
        if model and model != self.default:
            raise Refusal(404, "model_not_found", NO_MODEL, "model")
        yield self._serving

    async def reload(self, model: str | None = None) -> ReloadReport:
        """Open the bundle from disk once more and serve it in place of the old one, which ends with its last user.

        If it can't be opened or proved, its error is raised and the old one keeps serving.
        """
        raise NotImplementedError

    async def refresh_gallery(self, model: str | None = None) -> None:
        """Read the gallery of the bundle again, after tiles were added or deleted."""
        raise NotImplementedError

    async def close(self) -> None:
        """Drop what waits and end the model threads."""
        await run_sync(self.scheduler.close)


def _loaded(engine: Engine) -> Loaded:
    precision = "+".join(sorted(set(engine.precision.values())))
    tiles = 0 if engine.gallery is None else len(engine.gallery)
    return Loaded(engine.name, precision, ",".join(engine.providers), engine.fingerprint, tiles=tiles)
