"""The first answers of a bundle, before anyone waits for them: loads what loads lazily, and sizes what grows."""

import time
from collections.abc import Callable
from functools import partial

from PIL import Image

from edgegeo.server.engine import Engine


def warm_up(engine: Engine, max_batch: int) -> dict[str, float]:
    """One answer of every role, and one of a full batch where the role takes batches; the seconds of each.

    Raises MemoryError where the machine has no room for a full batch. Belongs on the model thread.
    """
    grey = Image.new("RGB", (64, 64), (127, 127, 127))
    embedder, reranker, generator = engine.locator.embedder, engine.locator.reranker, engine.locator.generator
    sizes = sorted({1, max_batch})
    jobs: dict[str, Callable[[], object]] = {}
    for n in sizes:
        if embedder is not None:
            jobs[f"embed_text_{n}"] = partial(embedder.texts, ["warm"] * n)
            jobs[f"embed_image_{n}"] = partial(embedder.images, [grey] * n)
        if reranker is not None:
            jobs[f"rerank_{n}"] = partial(reranker.score, grey, [grey] * n)
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
