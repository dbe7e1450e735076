"""The model thread of one device: what waits for it, and which inputs it takes together.

One thread runs the model, so that threads never fight over cores and memory stays that of one call. Whenever it is
free it takes the input that has waited longest, and with it what else waits of the same kind, up to a limit.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from edgegeo.server.metrics import Kind, Metrics

T = TypeVar("T")
X = TypeVar("X")
Y = TypeVar("Y")


@dataclass(frozen=True)
class Call(Generic[X, Y]):
    """Inputs that one call can take together: those whose `name` and `key` are equal."""

    name: Kind
    key: Hashable
    compute: Callable[[list[X]], Sequence[Y]]
    """From the inputs of a batch to their results, in the same order."""


@dataclass(eq=False)
class _Job:
    call: Call[Any, Any]
    item: Any
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[tuple[Any, float]]"

    def fits(self, other: "_Job") -> bool:
        return (self.call.name, self.call.key) == (other.call.name, other.call.key)

    def settle(self, outcome: Any, spent: float) -> None:
        """On the event loop: hand over a result or an error, unless nobody waits any longer."""
        if self.future.done():
            return
        if isinstance(outcome, _Failure):
            self.future.set_exception(outcome.error)
        else:
            self.future.set_result((outcome, spent))


@dataclass(frozen=True)
class _Failure:
    error: Exception


class Scheduler:
    """Runs what it is given on one thread of its own, in the order it came, in batches where the kind allows.

    A caller that is cancelled takes its input out of the line; an input that is being computed ends unheard.
    """

    def __init__(self, metrics: Metrics, max_batch: int = 16, wait_ms: float = 0.0) -> None:
        """`wait_ms`: how long an idle thread waits for a batch to fill; 0 takes what is there."""
        self.max_batch = max_batch
        self._wait_s = wait_ms / 1000.0
        self._metrics = metrics
        self._waiting: dict[int, _Job] = {}
        self._count = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._busy_since: float | None = None

    @property
    def waiting(self) -> int:
        """Inputs in line, those being computed not included."""
        return len(self._waiting)

    @property
    def busy_s(self) -> float:
        """Seconds that the call in progress has taken so far; 0 while there is none."""
        begun = self._busy_since
        return 0.0 if begun is None else time.monotonic() - begun

    async def run(self, name: Kind, job: Callable[..., T], *args: Any, **how: Any) -> tuple[T, float]:
        """The job's result, and its milliseconds on the model thread. It is never batched."""

        def alone(_: list[None]) -> list[T]:
            return [job(*args, **how)]

        return await self.row(Call(name, object(), alone), None)

    async def row(self, call: Call[X, Y], item: X) -> tuple[Y, float]:
        """The result of one input, and its share of the milliseconds of the call that computed it."""
        loop = asyncio.get_running_loop()
        job = _Job(call, item, loop, loop.create_future())
        with self._changed:
            if self._closed:
                raise CancelledError
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="edgegeo-model", daemon=True)
                self._thread.start()
            self._count += 1
            number = self._count
            self._waiting[number] = job
            self._changed.notify()
        try:
            return await job.future
        finally:
            with self._changed:
                self._waiting.pop(number, None)

    def close(self) -> None:
        """Drop what waits, let what runs end."""
        with self._changed:
            self._closed = True
            dropped, self._waiting = list(self._waiting.values()), {}
            self._changed.notify()
        for job in dropped:
            job.loop.call_soon_threadsafe(job.future.cancel)
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while taken := self._take():
            self._busy_since = begun = time.monotonic()
            outcomes = self._compute(taken)
            spent = (time.monotonic() - begun) * 1000.0
            self._busy_since = None
            self._metrics.batch(taken[0].call.name, len(taken), spent / 1000.0)
            for job, outcome in zip(taken, outcomes, strict=True):
                with suppress(RuntimeError):  # its event loop has ended, nobody listens
                    job.loop.call_soon_threadsafe(job.settle, outcome, spent / len(taken))

    def _take(self) -> list[_Job]:
        """The next batch; empty once the scheduler is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._wait_s:
                self._changed.wait_for(lambda: self._closed or len(self._next()) >= self.max_batch, self._wait_s)
            chosen = self._next()
            for number in chosen:
                del self._waiting[number]
        return list(chosen.values())

    def _next(self) -> dict[int, _Job]:
        """The input that has waited longest and those that fit it."""
        chosen: dict[int, _Job] = {}
        first = next(iter(self._waiting.values()), None)
        for number, job in self._waiting.items():
            if first is not None and job.fits(first):
                chosen[number] = job
                if len(chosen) == self.max_batch:
                    break
        return chosen

    def _compute(self, jobs: list[_Job]) -> list[Any]:
        """A result or a `_Failure` for every input; where a batch fails, each is tried by itself."""
        call = jobs[0].call
        try:
            outcomes = list(call.compute([job.item for job in jobs]))
            if len(outcomes) != len(jobs):
                raise RuntimeError(f"{call.name}: {len(outcomes)} results for {len(jobs)} inputs")
            return outcomes
        except Exception as error:
            if len(jobs) == 1:
                return [_Failure(error)]
        return [outcome for job in jobs for outcome in self._compute([job])]
