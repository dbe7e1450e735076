"""Small files in the true forms of the data sets."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from edgegeo.datasets import RetrievalSet, open_dataset
from edgegeo.datasets.sets import Loaded


def picture(path: Path, shade: int = 90) -> Path:
    """A picture that opens."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 12), (shade, 120, 60)).save(path)
    return path


def write(path: Path, content: Any) -> Path:
    """Text as it is, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def write_lines(path: Path, rows: list[Any]) -> Path:
    """JSON lines; a text is written as it is."""
    return write(path, "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def retrieval(*args: Any, **options: Any) -> RetrievalSet:
    """open_dataset, known to give queries and a gallery."""
    found = open_dataset(*args, **options)
    assert isinstance(found, RetrievalSet)
    return found


def traps(loaded: Loaded) -> dict[str, int]:
    """Trap to count."""
    return {trap.what: trap.count for trap in loaded.report.traps}
