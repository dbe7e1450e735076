"""What the registry knows of a data set's format."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgegeo.datasets.sets import Loaded


@dataclass(frozen=True)
class Form:
    """One data set, or several that share files of one shape."""

    name: str
    title: str
    layout: str
    """The files it is made of, in one line."""
    splits: tuple[str, ...]
    """The last is the default."""
    load: Callable[..., Loaded]
    """load(reader, **options): keyword-only parameters are the options."""
    recognise: Callable[[Path], str | None]
    """What in a folder (or file) speaks for this format; None if nothing does."""


def names_any(*names: str) -> Callable[[Path], str | None]:
    """Recognises a folder by a file or folder it holds."""

    def recognise(root: Path) -> str | None:
        return next((name for name in names if (root / name).exists()), None)

    return recognise
