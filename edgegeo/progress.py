"""How long work tells how far it is: one callable, so that a library, a server and a terminal can all listen."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as `progress(stage, done, total)`; `total` is 0 where the end is not known."""


def silent(stage: str, done: int, total: int) -> None:
    """A listener that ignores everything: the default of every function that takes a `Progress`."""
