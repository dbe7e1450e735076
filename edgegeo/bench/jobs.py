"""The jobs of `edgegeo.bench.definition.JOBS` as calls that can be timed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgegeo.bench.cells import Cell
from edgegeo.bench.stages import StageClock, TimedModel
from edgegeo.bundle import open_bundle

HITS = 10


@dataclass(frozen=True)
class Job:
    """Work on one batch of inputs after the other."""

    run: Callable[[int], Any]
    """The n-th call, on the n-th batch."""
    clock: StageClock
    items: int
    facts: Callable[[Any], dict[str, Any]]
    """What a result adds to the row."""


class Feed:
    """Batches of inputs, a different one each call, over and over."""

    def __init__(self, items: Sequence[Any], batch: int) -> None:
        self._items, self._batch = items, batch

    def __call__(self, call: int) -> list[Any]:
        """The batch of a call."""
        start = call * self._batch
        return [self._items[(start + i) % len(self._items)] for i in range(self._batch)]


def open_job(cell: Cell, texts: Sequence[str], photos: Sequence[bytes]) -> Job:
    """Open the cell's model, and its gallery where it has one; BundleError, DeviceError or GalleryError."""
    clock = StageClock()
    model = TimedModel(open_bundle(cell.bundle), clock, cell.threads or None, cell.provider)
    words, pictures = Feed(texts, cell.batch), Feed(photos, cell.batch)
    if cell.job in ("rerank", "locate") or cell.candidates > 1:
        return _locating(cell, model, pictures)
    if cell.job == "generate":
        from edgegeo.runtime import Generator

        generator = Generator(model)
        return Job(lambda n: generator.answers(pictures(n), batch=cell.batch), clock, cell.batch, _tokens)
    from edgegeo.runtime import Embedder

    embedder = Embedder(model, dims=cell.dims) if cell.dims else Embedder(model)
    if cell.job == "embed_image":
        return Job(lambda n: embedder.images(pictures(n), batch=cell.batch), clock, cell.batch, _nothing)
    if cell.job == "embed_text":
        return Job(lambda n: embedder.texts(words(n), batch=cell.batch), clock, cell.batch, _nothing)
    return _searching(cell, embedder, words, clock)


def _searching(cell: Cell, embedder: Any, words: Feed, clock: StageClock) -> Job:
    from edgegeo.runtime import Gallery

    gallery = Gallery.open(cell.gallery)
    k = min(HITS, len(gallery))

    def search(call: int) -> Any:
        vectors = embedder.texts(words(call), batch=cell.batch)
        with clock.stage("search"):
            return gallery.search(vectors, k)

    return Job(search, clock, cell.batch, lambda _: {"gallery": len(gallery)})


def _locating(cell: Cell, model: TimedModel, pictures: Feed) -> Job:
    """By way of `Locator`, whose answers say how long each stage took."""
    from edgegeo.runtime import Gallery, Locator

    gallery = None if cell.job == "generate" else Gallery.open(cell.gallery, bundle=model.bundle)
    locator = Locator(model, gallery)
    clock = StageClock()  # not the model's: the answer's own stages hold its sessions' runs

    def locate(call: int) -> Any:
        [photo] = pictures(call)
        answer = locator.locate(
            photo, k=HITS, rerank=cell.rerank, generate=cell.job != "rerank", candidates=cell.candidates
        )
        for stage, ms in answer.timings_ms.items():
            if clock.on and stage not in ("total", "load"):
                clock.add("trunk" if stage == "embed" else stage, 1e-3 * ms)
        return answer

    return Job(locate, clock, 1, lambda _: {} if gallery is None else {"gallery": len(gallery)})


def _tokens(answers: Any) -> dict[str, Any]:
    return {"tokens": sum(len(answer.tokens) for answer in answers) / len(answers)}


def _nothing(result: Any) -> dict[str, Any]:
    return {}
