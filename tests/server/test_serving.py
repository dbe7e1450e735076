"""One bundle under many callers: answers as alone, remembered ones first, and work that ends with its caller."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rewritten import rewritten

from edgegeo.bundle import open_bundle
from edgegeo.errors import InputError
from edgegeo.runtime import Decoding, Embedder, Generator
from edgegeo.server.cache import EmbeddingCache
from edgegeo.server.engine import Engine
from edgegeo.server.faults import Refusal
from edgegeo.server.inputs import Upload
from edgegeo.server.metrics import Metrics
from edgegeo.server.scheduler import Scheduler
from edgegeo.server.serving import Serving, bucket_of
from edgegeo.server.settings import ServerSettings

TEXTS = [f"a green field and {'river ' * (n % 5)}{'roof ' * (n % 3)}" for n in range(24)]


def run(
    engine: Engine, main: Callable[[Serving], Coroutine[Any, Any, Any]], cache_mb: int = 0, max_batch: int = 4
) -> Metrics:
    """`main` with a Serving of its own; what the metrics counted."""

    async def whole() -> Metrics:
        metrics = Metrics(lambda: 0)
        scheduler = Scheduler(metrics, max_batch)
        try:
            await main(Serving(engine, scheduler, EmbeddingCache(cache_mb * 2**20, metrics), metrics))
        finally:
            scheduler.close()
        return metrics

    return asyncio.run(whole())


@asynccontextmanager
async def model_busy(serving: Serving) -> AsyncIterator[None]:
    release = threading.Event()
    job = asyncio.ensure_future(serving._scheduler.run("heartbeat", release.wait, 10))
    await until(lambda: serving._scheduler.busy_s > 0)
    try:
        yield
    finally:
        release.set()
        await job


async def until(true: Callable[[], bool]) -> None:
    async def turn() -> None:
        while not true():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(turn(), 10)


def noted(monkeypatch: pytest.MonkeyPatch, engine: Engine, name: str) -> list[int]:
    """Sizes of the calls of one of the engine's methods from now on."""
    sizes: list[int] = []
    original = getattr(engine, name)

    def counted(items: list[Any]) -> Any:
        sizes.append(len(items))
        return original(items)

    monkeypatch.setattr(engine, name, counted)
    return sizes


def test_requests_share_calls_and_get_what_they_get_alone(
    engine: Engine, tiny_bundle: Path, photo: bytes, tile: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = Embedder.open(tiny_bundle, threads=1)
    texts, pictures = noted(monkeypatch, engine, "embed_texts"), noted(monkeypatch, engine, "embed_images")

    async def main(serving: Serving) -> None:
        async with model_busy(serving):
            jobs = [asyncio.ensure_future(serving.embed([text])) for text in TEXTS]
            jobs += [asyncio.ensure_future(serving.embed([Upload(data, "x")])) for data in (photo, tile) * 3]
            await until(lambda: serving._scheduler.waiting == len(jobs))
        rows = [vectors[0] for vectors, _ in await asyncio.gather(*jobs)]
        for row, text in zip(rows, TEXTS, strict=False):
            np.testing.assert_allclose(row, embedder.texts([text])[0], atol=1e-5)
        for row, data in zip(rows[len(TEXTS) :], (photo, tile) * 3, strict=True):
            np.testing.assert_allclose(row, embedder.images([data])[0], atol=1e-5)

    run(engine, main)
    assert sum(texts) == len(TEXTS)
    assert len(texts) < len(TEXTS) / 2
    assert max(texts) == 4
    assert pictures == [4, 2]


def test_lengths_of_one_bucket_hold_little_padding() -> None:
    for length in range(1, 3000):
        bucket, longest = bucket_of(length)
        assert longest >= length
        assert length <= 8 or length * 1.26 > longest
        assert bucket_of(longest)[0] == bucket


def test_texts_of_an_int8_graph_do_not_depend_on_each_other(
    tiny_bundle: Path, settings: ServerSettings, tmp_path: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = open_bundle(tiny_bundle).manifest
    parts = {name: replace(part, precision="int8") for name, part in manifest.components.items()}
    engine = Engine.load(rewritten(tiny_bundle, tmp_path / "int8", components=parts), None, settings)
    texts, pictures = noted(monkeypatch, engine, "embed_texts"), noted(monkeypatch, engine, "embed_images")

    async def main(serving: Serving) -> None:
        async with model_busy(serving):
            jobs = [asyncio.ensure_future(serving.embed([one])) for one in (*TEXTS, *[Upload(photo, "x")] * 4)]
            await until(lambda: serving._scheduler.waiting == len(jobs))
        await asyncio.gather(*jobs)

    run(engine, main)
    assert texts == [1] * len(TEXTS)
    assert pictures == [4]


def test_a_large_request_leaves_small_ones_their_turn(engine: Engine) -> None:
    async def main(serving: Serving) -> None:
        async with model_busy(serving):
            large = asyncio.ensure_future(serving.embed(TEXTS * 10))
            await until(lambda: serving._scheduler.waiting == 8)
            small = asyncio.ensure_future(serving.embed(["a small one"]))
            await until(lambda: serving._scheduler.waiting == 9)
        await small
        assert not large.done()
        vectors, _ = await large
        np.testing.assert_allclose(vectors[:24], vectors[24:48], atol=1e-5)

    run(engine, main)


def test_what_was_seen_before_is_not_decoded_again(engine: Engine, photo: bytes, tile: bytes) -> None:
    async def main(serving: Serving) -> None:
        first, spent = await serving.embed([Upload(photo, "a"), "a river", Upload(tile, "b")])
        assert spent > 0

        async def never(upload: Upload) -> Any:
            raise AssertionError("decoded again")

        serving.decoder.prepared = never  # type: ignore[method-assign]
        again, spent = await serving.embed([Upload(tile, "c"), Upload(photo, "d"), "a river"])
        assert spent == 0
        np.testing.assert_array_equal(again, first[[2, 0, 1]])
        with pytest.raises(AssertionError, match="decoded again"):
            await serving.embed([Upload(photo + b"\0", "e")])

    text = run(engine, main, cache_mb=1).text()
    assert b'edgegeo_cache_inputs_total{result="hit"} 3.0' in text
    assert b'edgegeo_cache_inputs_total{result="miss"} 4.0' in text


def test_bundles_do_not_answer_for_each_other(
    engine: Engine, other_tiny_bundle: Path, settings: ServerSettings, photo: bytes
) -> None:
    other = Engine.load(other_tiny_bundle, None, settings)

    async def main(serving: Serving) -> None:
        second = Serving(other, serving._scheduler, serving._cache, serving._metrics)
        for inputs in (["a river"], [Upload(photo, "x")]):
            mine, _ = await serving.embed(inputs)
            theirs, _ = await second.embed(inputs)
            assert float(mine[0] @ theirs[0]) < 0.99
            expected = other.locator.embedder
            assert expected is not None
            alone = expected.texts(["a river"]) if isinstance(inputs[0], str) else expected.images([photo])
            np.testing.assert_allclose(theirs, alone, atol=1e-5)

    run(engine, main, cache_mb=1)


def test_a_bad_input_ends_its_own_request_only(engine: Engine, photo: bytes) -> None:
    async def main(serving: Serving) -> None:
        async with model_busy(serving):
            good = asyncio.ensure_future(serving.embed(["a river"]))
            with pytest.raises(Refusal, match="not a JPEG"):
                await serving.embed([*TEXTS[:5], Upload(b"no picture", "input.5")])
            with pytest.raises(InputError, match="tokens"):
                await serving.embed(["river " * 500])
            # The other inputs of a request that has failed need not be computed.
            await until(lambda: serving._scheduler.waiting == 1)
        assert (await good)[0].shape == (1, engine.dim)

    run(engine, main)


def test_generation_stops_when_its_caller_leaves(engine: Engine, tiny_bundle: Path, photo: bytes) -> None:
    drawn = Decoding(temperature=5.0, seed=3, max_new_tokens=24)
    whole = Generator.open(tiny_bundle, threads=1).answer(photo, drawn)
    heard: list[str] = []

    async def main(serving: Serving) -> None:
        written, spent = await serving.answer(Upload(photo, "x"), drawn, heard.append)
        assert written[0].text == whole.text == "".join(heard)
        assert spent > 0
        assert len(heard) > 2
        first, release = threading.Event(), threading.Event()
        told: list[str] = []

        def hold(text: str) -> None:
            told.append(text)
            first.set()
            release.wait(10)

        job = asyncio.ensure_future(serving.answer(Upload(photo, "x"), drawn, hold))
        await until(first.is_set)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        release.set()
        await until(lambda: serving._scheduler.busy_s == 0)
        assert len(told) == 1
        # And the model is as good as before.
        assert (await serving.answer(Upload(photo, "x"), drawn))[0][0].text == whole.text

    run(engine, main)


@pytest.mark.parametrize("how", [{}, {"candidates": 5}])
def test_a_position_nobody_waits_for_is_not_written_to_its_end(
    engine: Engine, photo: bytes, monkeypatch: pytest.MonkeyPatch, how: dict[str, int]
) -> None:
    heard: list[int] = []
    begun, release = threading.Event(), threading.Event()
    locate = engine.locate

    def slow(*given: Any, listener: Any, **rest: Any) -> Any:
        def hear(*piece: Any) -> None:
            heard.append(piece[0])
            begun.set()
            release.wait(10)
            listener(*piece)

        return locate(*given, listener=hear, **rest)

    async def main(serving: Serving) -> None:
        found, _ = await serving.locate(Upload(photo, "x"), None, **how)
        assert {"wait", "decode", "preprocess", "vision", "embed", "search", "generate", "total"} <= set(
            found.timings_ms
        )
        monkeypatch.setattr(engine, "locate", slow)
        job = asyncio.ensure_future(serving.locate(Upload(photo, "x"), None, **how))
        await until(begun.is_set)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        release.set()
        await until(lambda: serving._scheduler.busy_s == 0)
        assert len(heard) == 1

    run(engine, main)


def test_a_search_finds_what_the_locator_finds(engine: Engine, photo: bytes) -> None:
    async def main(serving: Serving) -> None:
        for given in ((Upload(photo, "x"), None), (None, "a river"), (Upload(photo, "x"), "a river")):
            hits, timings = await serving.find(*given, k=4)
            found, _ = await serving.locate(*given, k=4, generate=False)
            assert [hit.id for hit in hits] == [hit.id for hit in found.hits]
            np.testing.assert_allclose([hit.score for hit in hits], [hit.score for hit in found.hits], atol=1e-5)
            assert set(timings) == {"wait", "embed", "search", "total"}

    run(engine, main)


def test_answers_in_line_are_dropped_before_they_begin(engine: Engine, photo: bytes) -> None:
    async def main(serving: Serving) -> None:
        async with model_busy(serving):
            job = asyncio.ensure_future(serving.answer(Upload(photo, "x")))
            await until(lambda: serving._scheduler.waiting == 1)
            job.cancel()
            await until(lambda: serving._scheduler.waiting == 0)

    assert b'edgegeo_batch_size_count{kind="answer"}' not in run(engine, main).text()
