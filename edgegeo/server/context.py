"""What every route needs: the bundles, the settings, the metrics."""

from dataclasses import dataclass
from typing import Any

from edgegeo.server.demo import Demo
from edgegeo.server.fleet import Fleet
from edgegeo.server.life import Life
from edgegeo.server.limits import Admission
from edgegeo.server.metrics import Metrics
from edgegeo.server.schemas import ErrorAnswer
from edgegeo.server.settings import ServerSettings

REFUSALS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorAnswer, "description": text}
    for code, text in {
        400: "the body is not JSON",
        401: "the API key is missing or wrong",
        403: "sent by another site's page, or a change without the administrator's key",
        404: "no such tile or model, or a role that this bundle does not offer",
        408: "the body came too slowly",
        413: "the request is too large",
        415: "not an image, or not JSON or a form",
        421: "the Host header names another server",
        422: "an input that can't be used; `param` says which",
        429: "the queue is full; Retry-After says when to come back",
        431: "too many header fields",
        500: "internal error",
        503: "not ready, or out of memory",
        504: "the deadline has passed",
    }.items()
}
"""For the OpenAPI document: every answer that isn't the wanted one has the error envelope."""


@dataclass
class Context:
    """Made once an app."""

    fleet: Fleet
    settings: ServerSettings
    metrics: Metrics
    admission: Admission
    life: Life
    _demo: Demo | None = None

    async def demo(self) -> Demo | None:
        """Of the planet that the default bundle is of at this moment; None for any other world."""
        async with self.fleet.use() as serving:
            seed = serving.engine.planet_seed
        if seed is None:
            return None
        if self._demo is None or self._demo.planet.seed != seed:
            self._demo = Demo(seed)
        return self._demo
