"""Pictures of a data set in batches: the next ones are decoded while the model computes, and few are in memory."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from edgegeo.datasets import open_picture
from edgegeo.datasets.sets import Picture
from edgegeo.errors import ImageError
from edgegeo.runtime.sessions import default_threads


@dataclass(frozen=True)
class Batch:
    """Some pictures of a sequence, by their rows in it."""

    rows: tuple[int, ...]
    """Of those that opened."""
    prepared: tuple[Any, ...]
    faults: dict[int, str]
    """Row -> why it did not open."""

    @property
    def size(self) -> int:
        """Pictures, damaged ones included."""
        return len(self.rows) + len(self.faults)


def stream(
    pictures: Sequence[Picture], prepare: Callable[[Any], Any], batch: int, threads: int | None = None
) -> Iterator[Batch]:
    """Batches in order; at most two batches of pictures are held at a time."""

    def work(picture: Picture) -> Any:
        try:
            return prepare(open_picture(picture))
        except ImageError as error:
            return error

    waiting: deque[tuple[int, Future[Any]]] = deque()
    left = iter(enumerate(pictures))
    pool = ThreadPoolExecutor(threads or default_threads())
    try:
        while True:
            ahead = 2 * batch - len(waiting)
            waiting.extend((row, pool.submit(work, picture)) for row, picture in islice(left, ahead))
            if not waiting:
                return
            taken = [waiting.popleft() for _ in range(min(batch, len(waiting)))]
            found = [(row, future.result()) for row, future in taken]
            good = [(row, one) for row, one in found if not isinstance(one, ImageError)]
            faults = {row: str(one) for row, one in found if isinstance(one, ImageError)}
            yield Batch(tuple(row for row, _ in good), tuple(one for _, one in good), faults)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
