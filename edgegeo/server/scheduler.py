"""The model thread of one device: what waits for it, and which inputs it takes together.

One thread runs the model, so that threads never fight over cores and memory stays that of one call. Whenever it is
free it takes the input that has waited longest, and with it what else waits of the same kind, up to a limit.
"""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from edgegeo.server import logs
from edgegeo.server.engine import known
from edgegeo.server.faults import draining
from edgegeo.server.metrics import Kind, Metrics

T = TypeVar("T")
X = TypeVar("X")
Y = TypeVar("Y")


@dataclass(frozen=True)
class Call(Generic[X, Y]):
    """Inputs that one call of the model can take together: those whose `kind` and `key` are equal."""

    kind: Kind
    key: Hashable
    compute: Callable[[list[X]], Sequence[Y]]
    """From the inputs of a batch to their results, in the same order."""
    most: int
    """Inputs that one call takes at most."""


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
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._begun: float | None = None

    @property
    def waiting(self) -> int:
        """Inputs in line, those being computed not included."""
        return len(self._waiting)

    @property
    def busy_s(self) -> float:
        """Seconds that the call in progress has taken so far; 0 while there is none."""
        begun = self._begun
        return 0.0 if begun is None else time.monotonic() - begun

    async def run(self, kind: Kind, job: Callable[..., T], *args: Any, **how: Any) -> tuple[T, float]:
        """The job's result, and its milliseconds on the model thread. It is never batched."""
        return await self.row(Call(kind, object(), lambda _: [job(*args, **how)], 1), None)

    async def row(self, call: Call[X, Y], item: X) -> tuple[Y, float]:
        """The result of one input, and its share of the milliseconds of the call that computed it."""
        loop = asyncio.get_running_loop()
        job = _Job(call, item, loop, loop.create_future())
        number = self._enter(job)
        trace = logs.current()
        try:
            done: _Done = await job.future
        finally:
            with self._changed:
                left = self._waiting.pop(number, None)
            if left is not None:
                self._metrics.drop("expired" if trace and trace.deadline <= loop.time() else "cancelled")
        if trace:
            trace.add(done.wait_ms, done.model_ms, done.batch)
        return done.result, done.model_ms / done.batch

    def close(self) -> None:
        """Turn away what waits, let what runs end."""
        with self._changed:
            self._closed = True
            dropped, self._waiting = list(self._waiting.values()), {}
            self._changed.notify_all()
        for job in dropped:
            self._metrics.drop("dropped")
            job.hand_over(draining())
        if self._thread is not None:
            self._thread.join()

    def _enter(self, job: "_Job") -> int:
        with self._changed:
            if self._closed:
                raise draining()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="edgegeo-model", daemon=True)
                self._thread.start()
            number = next(self._numbers)
            self._waiting[number] = job
            self._changed.notify_all()
            return number

    def _work(self) -> None:
        while taken := self._take():
            self._begun = begun = time.monotonic()
            outcomes = _computed(taken)
            spent = time.monotonic() - begun
            self._begun = None
            self._metrics.batch(taken[0].call.kind, len(taken), spent)
            for job, outcome in zip(taken, outcomes, strict=True):
                waited = begun - job.entered
                self._metrics.waited(waited)
                if not isinstance(outcome, Exception):
                    outcome = _Done(outcome, waited * 1000.0, spent * 1000.0, len(taken))
                job.hand_over(outcome)
            # Until the next input comes, this thread must not keep pictures and bundles alive.
            del taken, outcomes, job, outcome

    def _take(self) -> list["_Job"]:
        """The next batch; empty once the scheduler is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._wait_s:
                self._changed.wait_for(lambda: self._closed or self._full(), self._wait_s)
            while self._waiting or not self._closed:
                chosen = self._next()
                if chosen:
                    return [self._waiting.pop(number) for number in chosen]
                self._changed.wait()  # all were cancelled meanwhile
        return []

    def _next(self) -> list[int]:
        """Numbers of the input that has waited longest and of those that fit it."""
        chosen: list[int] = []
        first = next(iter(self._waiting.values()), None)
        if first is not None:
            for number, job in self._waiting.items():
                if job.fits(first):
                    chosen.append(number)
                    if len(chosen) == first.call.most:
                        break
        return chosen

    def _full(self) -> bool:
        chosen = self._next()
        return bool(chosen) and len(chosen) == self._waiting[chosen[0]].call.most


@dataclass(frozen=True)
class _Done:
    """A result, and how it came about."""

    result: Any
    wait_ms: float
    model_ms: float
    batch: int


@dataclass(eq=False)
class _Job:
    """One input in line."""

    call: Call[Any, Any]
    item: Any
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[_Done]"
    entered: float = field(default_factory=time.monotonic)

    def fits(self, other: "_Job") -> bool:
        return (self.call.kind, self.call.key) == (other.call.kind, other.call.key)

    def hand_over(self, outcome: "_Done | Exception") -> None:
        """From any thread: a result or an error for whoever waits, if anyone still does."""

        def settle() -> None:
            if self.future.done():
                return
            if isinstance(outcome, Exception):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)

        with suppress(RuntimeError):  # its event loop has ended
            self.loop.call_soon_threadsafe(settle)


def _computed(jobs: Sequence[_Job]) -> list[Any]:
    """A result or an Exception for every input; where a batch fails, each is tried by itself."""
    call = jobs[0].call
    try:
        outcomes = list(call.compute([job.item for job in jobs]))
        if len(outcomes) != len(jobs):
            raise RuntimeError(f"{call.kind}: {len(outcomes)} results for {len(jobs)} inputs")
        return outcomes
    except Exception as error:
        if len(jobs) == 1:
            return [known(error)]
    return [outcome for job in jobs for outcome in _computed([job])]
