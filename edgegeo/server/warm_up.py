"""The first answers of a bundle, before anyone waits for them: loads what loads lazily, and sizes what grows."""

import time
from collections.abc import Callable
from functools import partial

from PIL import Image

from edgegeo.server.engine import Engine


def warm_up(engine: Engine, max_batch: int) -> dict[str, float]:
    """One answer of every role, and one of a full batch of the largest inputs; the seconds of each.

    Raises MemoryError where the machine has no room for a full batch. Belongs on the model thread.
    """
    grey = Image.new("RGB", (64, 64), (127, 127, 127))
    embedder, reranker, generator = engine.locator.embedder, engine.locator.reranker, engine.locator.generator
    texts = max_batch if engine.batches_texts else 1
    jobs: dict[str, Callable[[], object]] = {}
    if embedder is not None:
        short = embedder.ids("warm")
        long = short[:1] * embedder.role.max_text_tokens
        jobs["embed_text_1"] = partial(embedder.tokens, [short])
        jobs[f"embed_text_{texts}_longest"] = partial(embedder.tokens, [long] * texts, texts)
        jobs["embed_image_1"] = partial(embedder.images, [grey])
        jobs[f"embed_image_{max_batch}"] = partial(embedder.images, [grey] * max_batch, max_batch)
    if reranker is not None:
        jobs["rerank_1"] = partial(reranker.score, grey, [grey])
        jobs[f"rerank_{max_batch}"] = partial(reranker.score, grey, [grey] * max_batch)
    if generator is not None:
        jobs["answer_1"] = partial(generator.answer, grey)
    if engine.gallery is not None:
        jobs["gallery_ids"] = partial(engine.gallery.row, "")
    return {name: _seconds(job) for name, job in jobs.items()}


def heartbeat(engine: Engine) -> None:
    """The cheapest answer that runs the model: shows that it isn't stuck. Belongs on the model thread."""
    grey = Image.new("RGB", (64, 64), (127, 127, 127))
    if engine.locator.embedder is not None:
        engine.locator.embedder.texts(["alive"])
    elif engine.locator.reranker is not None:
        engine.locator.reranker.score(grey, [grey])
    elif engine.locator.generator is not None:
        engine.locator.generator.answer(grey)


def _seconds(job: Callable[[], object]) -> float:
    begun = time.perf_counter()
    job()
    return time.perf_counter() - begun
