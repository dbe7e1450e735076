"""Work over the columns of a matrix, on every core, a bounded piece at a time."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

SLICE = 1 << 16
"""Numbers that one thread quantises at a time: small enough for its cache, so time and memory stay bounded."""


def in_slices(work: Callable[[int, int], None], columns: int, rows: int, least: int = 2) -> None:
    """Call work(first, past) for even slices of at least `least` columns; numpy lets go of the interpreter."""
    step = max(least, SLICE // max(rows, 1) // 2 * 2)
    pieces: Iterator[tuple[int, int]] = ((a, min(a + step, columns)) for a in range(0, columns, step))
    if columns <= step:
        work(0, columns)
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(min(cores, 8)) as pool:
        for _ in pool.map(lambda piece: work(*piece), pieces):
            pass
