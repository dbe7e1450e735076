"""The model thread: who shares a call, who waits, and what happens to those that fail or leave."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from edgegeo.server.faults import Refusal
from edgegeo.server.metrics import Metrics
from edgegeo.server.scheduler import Call, Scheduler


class Recorder:
    """Doubles numbers, and remembers which came together."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(list(items))
        self.threads.add(threading.get_ident())
        if -1 in items:
            raise ValueError("one of them is bad")
        return [2 * item for item in items]

    def call(self, key: object = "same", most: int = 4) -> Call[int, int]:
        return Call("embed_text", key, self, most)


@contextmanager
def opened(**settings: Any) -> Iterator[Scheduler]:
    scheduler = Scheduler(Metrics(lambda: 0), **settings)
    try:
        yield scheduler
    finally:
        scheduler.close()


@asynccontextmanager
async def held(scheduler: Scheduler) -> AsyncIterator[None]:
    """The model thread at work, so that what comes now waits in line."""
    release = threading.Event()
    busy = asyncio.ensure_future(scheduler.run("heartbeat", release.wait, 10))
    await until(lambda: scheduler.busy_s > 0)
    try:
        yield
    finally:
        release.set()
        await busy


async def in_line(scheduler: Scheduler, count: int) -> None:
    await until(lambda: scheduler.waiting == count)


async def until(true: Callable[[], bool]) -> None:
    async def turn() -> None:
        while not true():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(turn(), 10)


def test_what_waits_is_computed_together_and_everyone_gets_their_own() -> None:
    async def main(scheduler: Scheduler) -> None:
        compute = Recorder()
        async with held(scheduler):
            jobs = [asyncio.ensure_future(scheduler.row(compute.call(), i)) for i in range(10)]
            await in_line(scheduler, 10)
        results = await asyncio.gather(*jobs)
        assert [result for result, _ in results] == [2 * i for i in range(10)]
        assert compute.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        assert len(compute.threads) == 1
        assert threading.get_ident() not in compute.threads
        assert all(spent >= 0 for _, spent in results)

    with opened() as scheduler:
        asyncio.run(main(scheduler))


def test_other_kinds_and_buckets_are_not_mixed_and_the_oldest_goes_first() -> None:
    async def main(scheduler: Scheduler) -> None:
        compute = Recorder()
        async with held(scheduler):
            jobs = [
                asyncio.ensure_future(scheduler.row(compute.call("long" if i % 3 == 0 else "short"), i))
                for i in range(6)
            ]
            await in_line(scheduler, 6)
        await asyncio.gather(*jobs)
        assert compute.batches == [[0, 3], [1, 2, 4, 5]]

    with opened() as scheduler:
        asyncio.run(main(scheduler))


def test_one_bad_input_fails_alone() -> None:
    async def main(scheduler: Scheduler) -> None:
        compute = Recorder()
        async with held(scheduler):
            jobs = [asyncio.ensure_future(scheduler.row(compute.call(), i)) for i in (5, -1, 7)]
            await in_line(scheduler, 3)
        good, bad, other = await asyncio.gather(*jobs, return_exceptions=True)
        assert not isinstance(good, BaseException)
        assert not isinstance(other, BaseException)
        assert (good[0], other[0]) == (10, 14)
        assert isinstance(bad, ValueError)
        assert compute.batches == [[5, -1, 7], [5], [-1], [7]]
        assert (await scheduler.row(compute.call(), 1))[0] == 2

    with opened() as scheduler:
        asyncio.run(main(scheduler))


def test_a_short_result_is_an_error_and_never_somebody_elses() -> None:
    async def main(scheduler: Scheduler) -> None:
        lossy = Call("embed_text", "same", lambda items: items[:1], 4)
        async with held(scheduler):
            jobs = [asyncio.ensure_future(scheduler.row(lossy, i)) for i in range(3)]
            await in_line(scheduler, 3)
        assert [result for result, _ in await asyncio.gather(*jobs)] == [0, 1, 2]
        with pytest.raises(RuntimeError, match="0 results for 1 inputs"):
            await scheduler.row(Call("embed_text", "none", lambda items: [], 4), 1)

    with opened() as scheduler:
        asyncio.run(main(scheduler))


def test_who_leaves_is_not_computed() -> None:
    async def main(scheduler: Scheduler) -> None:
        compute = Recorder()
        async with held(scheduler):
            jobs = [asyncio.ensure_future(scheduler.row(compute.call(), i)) for i in range(4)]
            await in_line(scheduler, 4)
            jobs[1].cancel()
            await in_line(scheduler, 3)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(scheduler.row(compute.call(), 9), 0.02)
            assert scheduler.waiting == 3
        results = await asyncio.gather(*jobs, return_exceptions=True)
        assert isinstance(results[1], asyncio.CancelledError)
        assert compute.batches == [[0, 2, 3]]
        assert b'edgegeo_jobs_dropped_total{why="cancelled"} 2.0' in scheduler._metrics.text()

    with opened() as scheduler:
        asyncio.run(main(scheduler))


def test_a_caller_that_leaves_while_its_batch_runs_harms_nobody() -> None:
    async def main(scheduler: Scheduler) -> None:
        begun, release = threading.Event(), threading.Event()

        def slow(items: list[int]) -> list[int]:
            begun.set()
            release.wait(10)
            return items

        async with held(scheduler):
            jobs = [asyncio.ensure_future(scheduler.row(Call("embed_text", "slow", slow, 4), i)) for i in range(3)]
            await in_line(scheduler, 3)
        await until(begun.is_set)
        jobs[0].cancel()
        await asyncio.sleep(0)
        release.set()
        results = await asyncio.gather(*jobs, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert [result[0] for result in results[1:] if not isinstance(result, BaseException)] == [1, 2]

    with opened() as scheduler:
        asyncio.run(main(scheduler))


def test_an_idle_thread_waits_for_a_batch_only_when_told() -> None:
    async def two(scheduler: Scheduler, most: int) -> tuple[list[list[int]], float]:
        compute = Recorder()
        begun = time.perf_counter()
        first = asyncio.ensure_future(scheduler.row(compute.call(most=most), 1))
        await asyncio.sleep(0.05)
        second = asyncio.ensure_future(scheduler.row(compute.call(most=most), 2))
        await asyncio.gather(first, second)
        return compute.batches, time.perf_counter() - begun

    with opened(wait_ms=10_000) as scheduler:
        batches, spent = asyncio.run(two(scheduler, most=2))
        assert batches == [[1, 2]]
        assert spent < 5  # full, so that the rest of the wait is not waited
    with opened(wait_ms=200) as scheduler:
        assert asyncio.run(two(scheduler, most=4))[0] == [[1, 2]]
    with opened() as scheduler:
        assert asyncio.run(two(scheduler, most=2))[0] == [[1], [2]]


def test_closing_turns_away_what_waits_and_lets_end_what_runs() -> None:
    async def main(scheduler: Scheduler) -> None:
        begun, release = threading.Event(), threading.Event()

        def running() -> str:
            begun.set()
            release.wait(10)
            return "done"

        first = asyncio.ensure_future(scheduler.run("answer", running))
        await until(begun.is_set)
        second = asyncio.ensure_future(scheduler.run("answer", running))
        await in_line(scheduler, 1)
        closing = asyncio.get_running_loop().run_in_executor(None, scheduler.close)
        with pytest.raises(Refusal) as refused:
            await second
        assert (refused.value.status, refused.value.code) == (503, "draining")
        release.set()
        assert (await first)[0] == "done"
        await closing
        with pytest.raises(Refusal):
            await scheduler.run("answer", running)

    with opened() as scheduler:
        asyncio.run(main(scheduler))
