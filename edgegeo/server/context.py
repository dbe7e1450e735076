"""What every route needs: the engine, the model thread, the decoder, the metrics."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from edgegeo.server.demo import Demo
from edgegeo.server.engine import Engine
from edgegeo.server.inputs import Decoder
from edgegeo.server.metrics import Metrics
from edgegeo.server.schemas import ErrorAnswer
from edgegeo.server.settings import ServerSettings
from edgegeo.server.worker import Admission, ModelThread

P = ParamSpec("P")
T = TypeVar("T")

REFUSALS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorAnswer, "description": text}
    for code, text in {
        400: "the body is not JSON",
        401: "the API key is missing or wrong",
        404: "no such tile, or a role that this bundle does not offer",
        413: "the request is too large",
        415: "not an image, or not JSON or a form",
        422: "an input that can't be used; `param` says which",
        429: "the queue is full; Retry-After says when to come back",
        500: "internal error",
        503: "not ready, or out of memory",
        504: "the deadline has passed",
    }.items()
}
"""For the OpenAPI document: every answer that isn't the wanted one has the error envelope."""


@dataclass
class Context:
    """Made once an app."""

    engine: Engine
    settings: ServerSettings
    metrics: Metrics
    admission: Admission
    decoder: Decoder
    model: ModelThread = field(default_factory=ModelThread)
    demo: Demo | None = None
    ready: bool = False
    """Set after the warm-up."""

    async def timed(self, stage: str, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
        """Run a job on the model thread; its result and its milliseconds there, recorded under `stage`."""

        def measured() -> tuple[T, float]:
            begun = time.perf_counter()
            result = job(*args, **kwargs)
            return result, (time.perf_counter() - begun) * 1000.0

        result, spent = await self.model.run(measured)
        self.metrics.stages({stage: spent})
        return result, spent
