"""A process that builds, adds and compacts in children of its own, and kills them when told; it imports once.

Reads lines of JSON {"verb", "bundle", "source", "target", "after_s", "at_sync"} and answers each with {"status", "s"}:
the child's status as os.waitpid gives it, and the seconds it lived. It is killed with SIGKILL `after_s` seconds after
its start, or kills itself so at its `at_sync`-th fsync or rename; null: it may finish.
"""

import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable

from edgegeo.runtime.embed import Embedder
from edgegeo.runtime.gallery.build import build_gallery
from edgegeo.runtime.gallery.compact import Layout, compact
from edgegeo.runtime.gallery.edit import add_tiles
from edgegeo.runtime.gallery.intake import IntakeSettings
from edgegeo.runtime.gallery.sources import csv_list


def job(task: dict) -> None:
    if task["at_sync"] is not None:
        stop_at(task["at_sync"])
    if task["verb"] == "compact":
        compact(task["target"], Layout("binary", approximate=False))
        return
    settings = IntakeSettings(batch=3, part_rows=3)
    embedder = Embedder.open(task["bundle"], threads=1)
    change = build_gallery if task["verb"] == "build" else add_tiles
    change(task["target"], csv_list(task["source"]), embedder, settings=settings)


def stop_at(last: int) -> None:
    """Have this process die at the last-th call that makes something durable, half of the time just after it."""
    calls = itertools.count(1)  # of several threads
    for name in ("fsync", "replace"):
        call = getattr(os, name)

        def counted(*args: object, call: Callable[..., None] = call) -> None:
            number = next(calls)
            if number == last and last % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            call(*args)
            if number == last:
                os.kill(os.getpid(), signal.SIGKILL)

        setattr(os, name, counted)


def main() -> None:
    for line in sys.stdin:
        task = json.loads(line)
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            try:
                job(task)
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(3)
            os._exit(0)
        if task["after_s"] is not None:
            time.sleep(task["after_s"])
            os.kill(child, signal.SIGKILL)  # a child that is done stays a zombie until waitpid
        _, status = os.waitpid(child, 0)
        print(json.dumps({"status": status, "s": time.monotonic() - start}), flush=True)


if __name__ == "__main__":
    main()
