"""One opened bundle as the routes use it: asynchronous, batched over all requests, from any form of input."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from anyio.to_thread import run_sync

from edgegeo.bundle import ImageSpec
from edgegeo.runtime import Answer, Decoding, Generated, Hit, Picture
from edgegeo.runtime.decoding import Listener
from edgegeo.runtime.embed import TOKENS_PER_RUN
from edgegeo.runtime.pictures import positions_of
from edgegeo.runtime.question import combined
from edgegeo.server.cache import EmbeddingCache, content_key
from edgegeo.server.engine import Engine
from edgegeo.server.inputs import Decoder, Floats, Upload
from edgegeo.server.metrics import Metrics
from edgegeo.server.scheduler import Call, Scheduler

T = TypeVar("T")

PREPARED_BYTES = 256 * 2**20
"""Prepared pictures that wait or are looked at take at most about so much, whatever comes in."""
_STEP = 1.25
"""Lengths of one bucket differ by less than this factor, so that less than a fifth of a batch is padding."""
_SHORTEST = 8
_LARGE = 2**20
"""Bytes from which hashing would hold up the event loop (about a millisecond)."""


class Serving:
    """What one bundle answers. Whoever uses it holds it through `Fleet.use`, so that it stays open."""

    def __init__(self, engine: Engine, scheduler: Scheduler, cache: EmbeddingCache, metrics: Metrics) -> None:
        self.engine = engine
        self.decoder = Decoder(engine.image_spec)
        self._scheduler = scheduler
        self._cache = cache
        self._metrics = metrics
        room = max(2, PREPARED_BYTES // picture_bytes(engine.image_spec))
        self._held = asyncio.Semaphore(min(4 * scheduler.max_batch, room))
        self._group = min(scheduler.max_batch, room)
        # One group of candidates is prepared while another is looked at.
        self._groups = asyncio.Semaphore(2)

    async def embed(self, inputs: Sequence[str | Upload]) -> tuple[Floats, float]:
        """(N, dim) unit vectors of texts and pictures in any order, and the model's milliseconds.

        Of an input seen before the vector is remembered, before anything of it is decoded. Raises InputError for a
        text that the model can't read; Refusal and ImageError for an Upload that is no usable picture.
        """
        # Two batches of a request are on their way at once, one decoded while the other is computed; more would let a
        # large request fill the line before a small one.
        window = asyncio.Semaphore(2 * self._scheduler.max_batch)

        async def one(content: str | Upload) -> tuple[Floats, float]:
            async with window:
                return await self._vector(content)

        rows = await _all([one(content) for content in inputs])
        return np.stack([vector for vector, _ in rows]), sum(spent for _, spent in rows)

    async def rerank(self, query: str | Upload, documents: Sequence[str | Upload]) -> tuple[list[float], float]:
        """p(yes) of every document, looked at together with the query, and the model's milliseconds."""
        asked = await self._prepared(query)
        scores: list[float] = []
        spent = 0.0
        # Group by group, so that a long list of documents leaves others their turn.
        for start in range(0, len(documents), self._group):
            async with self._groups:
                shown = await _all([self._prepared(one) for one in documents[start : start + self._group]])
                found, took = await self._scheduler.run("rerank", self.engine.rerank, asked, shown)
            scores += found
            spent += took
        return scores, spent

    async def find(
        self, photo: Upload | None, text: str | None, k: int, also: Sequence[Upload] = (), avoid: Sequence[str] = ()
    ) -> tuple[list[Hit], dict[str, float]]:
        """The k nearest tiles to photos of one place, a text, or both, away from `avoid`; and milliseconds by stage.

        What was waited for is told as "wait": the line, and the decoding of a picture.
        """
        begun = time.perf_counter()
        photos = [*(() if photo is None else (photo,)), *also]
        vectors, embedding = await self.embed([*(() if text is None else (text,)), *photos, *avoid])
        count = len(vectors) - len(avoid)
        said, seen = (vectors[:1], vectors[1:count]) if text is not None else (None, vectors[:count])
        query = combined(seen, said, vectors[count:], self.engine.text_share)[0]
        searching = time.perf_counter()
        hits = await run_sync(self.engine.search, query, k)
        ended = time.perf_counter()
        waited = max(0.0, (searching - begun) * 1000.0 - embedding)
        timings = {"wait": waited, "embed": embedding, "search": (ended - searching) * 1000.0}
        self._metrics.stages(timings)
        return hits, {**timings, "total": (ended - begun) * 1000.0}

    async def locate(
        self, photo: Upload | None, text: str | None, also: Sequence[Upload] = (), **how: Any
    ) -> tuple[Answer, float]:
        """`Locator.locate`, with the time in line as "wait" in the timings; and the model's milliseconds.

        When the caller is cancelled, the model stops before the next token.
        """
        begun = time.perf_counter()
        more = await _all([self.decoder.prepared(one) for one in also])
        async with self.decoder.opened(photo) as image:
            opened = time.perf_counter()
            picture = None if image is None else await self.decoder.prepare(image)
            entered = time.perf_counter()
            with _listening() as hear:
                found, spent = await self._scheduler.run(
                    "locate", self.engine.locate, image, text, picture=picture, listener=hear, also=more, **how
                )
        ended = time.perf_counter()
        stages = dict(found.timings_ms)
        waited = (ended - entered) * 1000.0 - stages.pop("total", 0.0)
        if image is not None:
            stages["decode"] = stages.get("decode", 0.0) + (opened - begun) * 1000.0
            stages["preprocess"] = (entered - opened) * 1000.0
        timings = {"wait": max(0.0, waited), **stages}
        self._metrics.stages(timings)
        return replace(found, timings_ms={**timings, "total": (ended - begun) * 1000.0}), spent

    async def answer(
        self,
        photo: Upload,
        decoding: Decoding | None = None,
        on_text: Callable[[str], None] | None = None,
        count: int = 1,
    ) -> tuple[list[Generated], float]:
        """Generated answers and the model's milliseconds; `on_text` hears each piece of the first on the model thread.

        When the caller is cancelled, the model stops before the next token.
        """
        async with self._held:
            picture = await self.decoder.prepared(photo)
            with _listening(on_text) as hear:
                return await self._scheduler.run("answer", self.engine.answer, picture, decoding, hear, count)

    async def _prepared(self, content: str | Upload) -> str | Picture:
        return await self.decoder.prepared(content) if isinstance(content, Upload) else content

    async def _vector(self, content: str | Upload) -> tuple[Floats, float]:
        """The unit vector (dim,) of one input, and its share of the model's milliseconds."""
        data = content if isinstance(content, str) else content.data
        space = self.engine.embedding_id
        key = content_key(space, data) if len(data) < _LARGE else await run_sync(content_key, space, data)
        vector = self._cache.get(key)
        if vector is not None:
            return vector, 0.0
        vector, spent = await (self._read(content) if isinstance(content, str) else self._shown(content))
        self._cache.put(key, vector)
        return vector, spent

    async def _read(self, text: str) -> tuple[Floats, float]:
        tokens = self.engine.text_tokens(text)
        bucket, longest = bucket_of(len(tokens))
        most = self._most(longest) if self.engine.batches_texts else 1
        call = Call("embed_text", (self, bucket), self.engine.embed_texts, most)
        return await self._scheduler.row(call, tokens)

    async def _shown(self, picture: Upload) -> tuple[Floats, float]:
        async with self._held:
            prepared = await self.decoder.prepared(picture)
            bucket, longest = bucket_of(positions_of(prepared.layout))
            call = Call("embed_image", (self, bucket), self.engine.embed_images, self._most(longest))
            return await self._scheduler.row(call, prepared)

    def _most(self, positions: int) -> int:
        """Inputs of so many prompt positions in one call: beyond what is worth it they would only make others wait."""
        return max(1, min(self._scheduler.max_batch, TOKENS_PER_RUN // positions))


class Left(Exception):
    """Raised inside a generation whose caller is gone, to end it."""


@contextmanager
def _listening(on_text: Callable[[str], None] | None = None) -> Iterator[Listener]:
    """A listener for the time in which its caller waits; after that it ends the generation that it hears."""
    left = threading.Event()

    def hear(row: int, tokens: tuple[int, ...], text: str) -> None:
        if left.is_set():
            raise Left
        if on_text is not None and text and row == 0:
            on_text(text)

    try:
        yield hear
    finally:
        left.set()


def bucket_of(length: int) -> tuple[int, int]:
    """Inputs with this number share a batch; and the longest one in it."""
    bucket = math.ceil(math.log(max(length, _SHORTEST) / _SHORTEST, _STEP) - 1e-9)
    return bucket, math.floor(_SHORTEST * _STEP**bucket + 1e-9)


def picture_bytes(spec: ImageSpec) -> int:
    """Bytes of the largest prepared picture, about."""
    pixels = spec.max_pixels if spec.max_pixels else spec.size**2 * (spec.max_tiles + 1)
    return pixels * 3 * np.dtype(np.float32).itemsize


async def _all(jobs: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Results in order. The first failure ends the other jobs too, and so does cancelling the caller."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
