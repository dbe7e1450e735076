"""What Prometheus sees. One registry per app, so that two apps in one process (tests) don't collide."""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counters of one server. Labels take values from fixed sets only, never from a client."""

    def __init__(self, in_hand: Callable[[], int]) -> None:
        """`in_hand` tells how many requests are in the queue, the running one included."""
        self.registry = CollectorRegistry()
        # Resident memory, open descriptors, CPU seconds (from /proc; absent on other systems).
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.request_seconds = Histogram(
            "edgegeo_request_seconds",
            "Seconds from the first byte of a request to the end of its answer.",
            ("route", "method", "status"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "edgegeo_stage_seconds",
            "Seconds in one stage of the work.",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.refused = Counter(
            "edgegeo_refused_total", "Requests refused before any work.", ("reason",), registry=self.registry
        )
        queue = Gauge("edgegeo_queue_size", "Requests admitted and not yet answered.", registry=self.registry)
        queue.set_function(lambda: float(in_hand()))
        self.model = Gauge(
            "edgegeo_model_info",
            "1, with what is served as labels.",
            ("bundle", "precision", "provider", "fingerprint"),
            registry=self.registry,
        )
        self.gallery = Gauge("edgegeo_gallery_tiles", "Tiles in the gallery.", registry=self.registry)

    def stages(self, timings_ms: Mapping[str, float]) -> None:
        """Record a timing breakdown in milliseconds."""
        for stage, spent in timings_ms.items():
            self.stage_seconds.labels(stage).observe(spent / 1000.0)

    def text(self) -> bytes:
        """The exposition format, version 0.0.4."""
        return generate_latest(self.registry)
