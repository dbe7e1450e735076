"""One opened bundle as the routes use it: asynchronous, batched over all requests, from any form of input."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from anyio.to_thread import run_sync
from PIL import Image

from edgegeo.runtime import Answer, Decoding, Generated, Hits, Picture
from edgegeo.server.engine import Engine
from edgegeo.server.inputs import Decoder, Floats, Upload
from edgegeo.server.metrics import Metrics
from edgegeo.server.scheduler import Call, Scheduler

Shown = Picture | Upload
"""A picture, prepared or as it came."""


class Serving:
    """What one bundle answers. Whoever uses it holds it through `Fleet.use`, so that it stays open."""

    def __init__(self, engine: Engine, decoder: Decoder, scheduler: Scheduler, metrics: Metrics) -> None:
        self.engine = engine
        self.decoder = decoder
        self._scheduler = scheduler
        self._metrics = metrics

    async def embed(self, inputs: Sequence[str | Shown]) -> tuple[Floats, float]:
        """(N, dim) unit vectors of texts and pictures in any order, and the model's milliseconds."""
        rows = await asyncio.gather(*(self._vector(one) for one in inputs))
        return np.stack([vector for vector, _ in rows]), sum(spent for _, spent in rows)

    async def embed_texts(self, texts: Sequence[str]) -> tuple[Floats, float]:
        """(N, dim) unit vectors and the model's milliseconds; InputError for a text that is too long."""
        return await self.embed(texts)

    async def embed_images(self, pictures: Sequence[Shown]) -> tuple[Floats, float]:
        """(N, dim) unit vectors and the model's milliseconds; of an Upload also Refusal and ImageError."""
        return await self.embed(pictures)

    async def rerank(self, query: str | Shown, documents: Sequence[str | Shown]) -> tuple[list[float], float]:
        """p(yes) of every document, looked at together with the query, and the model's milliseconds."""
        shown = query if isinstance(query, str) else await self._prepared(query)
        scores: list[float] = []
        spent = 0.0
        for start in range(0, len(documents), self._scheduler.max_batch):
            group = documents[start : start + self._scheduler.max_batch]
            prepared = [one if isinstance(one, str) else await self._prepared(one) for one in group]
            found, took = await self._scheduler.run("rerank", self.engine.rerank, shown, prepared)
            scores += found
            spent += took
        return scores, spent

    async def locate(self, photo: Image.Image | Upload | None, text: str | None, **how: Any) -> tuple[Answer, float]:
        """`Locator.locate`, with the time in line as "wait" in the timings; and the model's milliseconds."""
        begun = time.perf_counter()
        async with self.decoder.opened(photo if isinstance(photo, Upload) else None) as opened:
            decoded = time.perf_counter()
            image = photo if isinstance(photo, Image.Image) else opened
            found, spent = await self._scheduler.run("locate", self.engine.locate, image, text, **how)
        ended = time.perf_counter()
        stages = dict(found.timings_ms)
        waited = (ended - decoded) * 1000.0 - stages.pop("total", 0.0)
        if image is not None:
            stages["decode"] = stages.get("decode", 0.0) + (decoded - begun) * 1000.0
        timings = {"wait": max(0.0, waited), **stages}
        self._metrics.stages(timings)
        return replace(found, timings_ms={**timings, "total": (ended - begun) * 1000.0}), spent

    async def answer(
        self,
        photo: Image.Image | Upload,
        decoding: Decoding | None = None,
        on_text: Callable[[str], None] | None = None,
        count: int = 1,
    ) -> tuple[list[Generated], float]:
        """Generated answers and the model's milliseconds; `on_text` hears each piece of the first on the model thread.

        When the caller is cancelled, the model stops before the next token.
        """
        left = threading.Event()

        def hear(row: int, tokens: tuple[int, ...], text: str) -> None:
            if left.is_set():
                raise Left
            if on_text is not None and text and row == 0:
                on_text(text)

        try:
            async with self.decoder.opened(photo if isinstance(photo, Upload) else None) as opened:
                image = opened if isinstance(photo, Upload) else photo
                assert image is not None
                return await self._scheduler.run("answer", self.engine.answer, image, decoding, hear, count)
        finally:
            left.set()

    async def search(self, vector: Floats, k: int) -> Hits:
        """The k nearest tiles to a unit vector (dim,)."""
        return await run_sync(self.engine.search, vector, k)

    async def _prepared(self, picture: Shown) -> Picture:
        return await self.decoder.prepared(picture) if isinstance(picture, Upload) else picture

    async def _vector(self, one: str | Shown) -> tuple[Floats, float]:
        if isinstance(one, str):
            texts = Call("embed_text", self, self.engine.embed_texts)
            return await self._scheduler.row(texts, one)
        pictures = Call("embed_image", self, self.engine.embed_images)
        return await self._scheduler.row(pictures, await self._prepared(one))


class Left(Exception):
    """Raised inside a generation whose caller is gone, to end it."""
