"""The model thread: one thread runs the model, so that answers never mix and threads never fight over cores."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class ModelThread:
    """Runs jobs one after the other, in the order they came."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="edgegeo-model")

    async def run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The job's result. Cancelling the caller drops the job if it hasn't begun; one that has begun ends unheard."""
        return await asyncio.wrap_future(self._pool.submit(job, *args, **kwargs))

    def close(self) -> None:
        """Drop what waits, let what runs end."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Admission:
    """Counts the requests in hand; bounded, so that memory and waiting are bounded too. For one event loop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._in_hand = 0

    @property
    def in_hand(self) -> int:
        """Requests admitted and not yet answered."""
        return self._in_hand

    def enter(self) -> bool:
        """Take a place; False when none is left."""
        if self._in_hand >= self.limit:
            return False
        self._in_hand += 1
        return True

    def leave(self) -> None:
        """Give the place back."""
        self._in_hand -= 1
