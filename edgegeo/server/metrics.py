"""What Prometheus sees. One registry per app, so that two apps in one process (tests) don't collide."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256)

Reason = Literal[
    "key", "admin_key", "host", "origin", "size", "encoding", "slow", "queue", "client", "deadline", "not_ready",
    "draining", "memory",
]  # fmt: skip
"""Why a request is refused before any work."""

Kind = Literal["embed_text", "embed_image", "rerank", "locate", "answer", "search", "warm_up", "heartbeat"]
"""What a call of the model computes."""

Drop = Literal["cancelled", "expired", "dropped"]
"""Why a job is not run: its client left, its deadline passed, the server ended."""

STAGES = frozenset(
    (*get_args(Kind), "wait", "decode", "preprocess", "vision", "embed", "generate", "load", "total", "trunk", "head")
)
"""Stages of the timing breakdowns; any other is counted as "other"."""


@dataclass(frozen=True)
class Loaded:
    """One bundle that is open, as the metrics show it."""

    bundle: str
    precision: str
    provider: str
    fingerprint: str
    memory_bytes: int | None = None
    """What the bundle was measured or estimated to take; None if nobody knows."""
    tiles: int = 0
    """Tiles of its gallery, 0 without one."""


class Metrics:
    """Counters of one server. Labels take values from fixed sets only, never from a client. Safe from any thread."""

    def __init__(self, in_hand: Callable[[], int]) -> None:
        """`in_hand` tells how many requests are admitted and not yet answered."""
        self.registry = CollectorRegistry()
        # Resident memory, open descriptors, CPU seconds (from /proc; absent on other systems).
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests(in_hand)
        self._model()
        self._life()

    def _requests(self, in_hand: Callable[[], int]) -> None:
        self.request_seconds = self._histogram(
            "edgegeo_request_seconds",
            "Seconds from the first byte of a request to the end of its answer.",
            ("route", "method", "status"),
        )
        self.stage_seconds = self._histogram("edgegeo_stage_seconds", "Seconds in one stage of the work.", ("stage",))
        self.refused = self._counter("edgegeo_refused", "Requests refused before any work.", "reason", Reason)
        held = Gauge("edgegeo_requests_in_hand", "Requests admitted and not yet answered.", registry=self.registry)
        held.set_function(lambda: float(in_hand()))

    def _model(self) -> None:
        self._queue = Gauge("edgegeo_queue_size", "Jobs that wait for the model.", registry=self.registry)
        self.wait_seconds = self._histogram("edgegeo_queue_wait_seconds", "Seconds a job waited for the model.")
        self.batch_size = self._histogram("edgegeo_batch_size", "Inputs in one call of the model.", ("kind",), _SIZES)
        self.model_seconds = self._histogram("edgegeo_model_seconds", "Seconds of one call of the model.", ("kind",))
        self._dropped = self._counter("edgegeo_jobs_dropped", "Jobs that were not run.", "why", Drop)
        self._cached = self._counter(
            "edgegeo_cache_inputs", "Inputs looked up in the embedding cache.", "result", Literal["hit", "miss"]
        )
        self._cache_bytes = Gauge("edgegeo_cache_bytes", "Bytes held by the embedding cache.", registry=self.registry)

    def _life(self) -> None:
        self._reloads = self._counter(
            "edgegeo_reloads", "Reloads of a bundle or gallery.", "result", Literal["done", "failed"]
        )
        self._heartbeats = self._counter(
            "edgegeo_heartbeats", "Trial answers of the model.", "result", Literal["done", "failed"]
        )
        self.ready = Gauge("edgegeo_ready", "1 while requests are answered.", registry=self.registry)
        self.draining = Gauge("edgegeo_draining", "1 once the server was told to stop.", registry=self.registry)
        self._heartbeat = _Heartbeat()
        self.registry.register(self._heartbeat)

    def _histogram(
        self, name: str, text: str, labels: tuple[str, ...] = (), buckets: Iterable[float] = _SECONDS
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=tuple(buckets), registry=self.registry)

    def _counter(self, name: str, text: str, label: str, values: object) -> Counter:
        # Every series exists from the start, so that a rate over the first event is not lost.
        counter = Counter(name, text, (label,), registry=self.registry)
        for value in get_args(values):
            counter.labels(value)
        return counter

    def watch_queue(self, waiting: Callable[[], int]) -> None:
        """`waiting` tells how many jobs wait for the model; asked on every scrape, from another thread."""
        self._queue.set_function(lambda: float(waiting()))

    def watch_cache(self, held: Callable[[], int]) -> None:
        """`held` tells the bytes in the embedding cache."""
        self._cache_bytes.set_function(lambda: float(held()))

    def watch_bundles(self, loaded: Callable[[], Iterable[Loaded]]) -> None:
        """`loaded` tells the bundles that are open; one that is retired has no series any more."""
        self.registry.register(_Bundles(loaded))

    def watch(self, collector: Collector) -> None:
        """Add series read on every scrape, as the machine's sensors."""
        self.registry.register(collector)

    def refuse(self, reason: Reason) -> None:
        """A request was refused before any work."""
        self.refused.labels(reason).inc()

    def batch(self, kind: Kind, inputs: int, seconds: float) -> None:
        """The model was called once, with so many inputs of all requests together."""
        self.batch_size.labels(kind).observe(inputs)
        self.model_seconds.labels(kind).observe(seconds)

    def waited(self, seconds: float) -> None:
        """A job waited so long for the model."""
        self.wait_seconds.observe(seconds)

    def drop(self, why: Drop) -> None:
        """A job was not run."""
        self._dropped.labels(why).inc()

    def cached(self, hits: int, misses: int) -> None:
        """Inputs were looked up in the embedding cache."""
        self._cached.labels("hit").inc(hits)
        self._cached.labels("miss").inc(misses)

    def reloaded(self, done: bool) -> None:
        """A bundle or gallery was opened again, or could not be."""
        self._reloads.labels("done" if done else "failed").inc()

    def beat(self, done: bool) -> None:
        """The model gave a trial answer, or did not in time."""
        self._heartbeats.labels("done" if done else "failed").inc()
        if done:
            self._heartbeat.last = time.monotonic()

    def stages(self, timings_ms: Mapping[str, float]) -> None:
        """Record a timing breakdown in milliseconds."""
        for stage, spent in timings_ms.items():
            self.stage_seconds.labels(stage if stage in STAGES else "other").observe(spent / 1000.0)

    def text(self) -> bytes:
        """The exposition format, version 0.0.4. Reads files of the system: not for the event loop."""
        return generate_latest(self.registry)


class _Heartbeat(Collector):
    """Age of the last trial answer; no series before the first one."""

    def __init__(self) -> None:
        self.last: float | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        age = GaugeMetricFamily("edgegeo_heartbeat_age_seconds", "Seconds since the model last gave a trial answer.")
        if self.last is not None:
            age.add_metric((), time.monotonic() - self.last)
        yield age


class _Bundles(Collector):
    """The bundles that are open at the time of the scrape."""

    def __init__(self, loaded: Callable[[], Iterable[Loaded]]) -> None:
        self._loaded = loaded

    def collect(self) -> Iterator[GaugeMetricFamily]:
        labels = ("bundle", "precision", "provider", "fingerprint")
        info = GaugeMetricFamily("edgegeo_model_info", "1, with what is served as labels.", labels=labels)
        memory = GaugeMetricFamily("edgegeo_bundle_memory_bytes", "Memory that a bundle takes.", labels=("bundle",))
        tiles = GaugeMetricFamily("edgegeo_gallery_tiles", "Tiles in the bundle's gallery.", labels=("bundle",))
        count = GaugeMetricFamily("edgegeo_bundles_loaded", "Bundles that are open.")
        loaded = list(self._loaded())
        for one in loaded:
            info.add_metric((one.bundle, one.precision, one.provider, one.fingerprint), 1)
            tiles.add_metric((one.bundle,), one.tiles)
            if one.memory_bytes is not None:
                memory.add_metric((one.bundle,), one.memory_bytes)
        count.add_metric((), len(loaded))
        yield from (info, memory, tiles, count)
