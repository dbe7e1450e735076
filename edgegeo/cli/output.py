"""What verbs say: results on stdout as tables or one JSON document, notes and progress on stderr."""

import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from edgegeo.progress import Progress
from edgegeo.schema import to_plain


def emit_json(document: Any) -> None:
    """Print one JSON document."""
    print(json_text(document), flush=True)


def json_text(document: Any) -> str:
    """A JSON document as text. Numbers that JSON does not have (NaN, infinities) become null."""
    return json.dumps(_finite(to_plain(document)), indent=2, ensure_ascii=False, allow_nan=False)


def say(*lines: str) -> None:
    """Results for a person: plain lines on stdout, without markup, so that a name with [brackets] stays whole."""
    for line in lines:
        print(line)


def note(text: str) -> None:
    """A remark beside the result, on stderr: what was chosen, what was written, what could be done next."""
    print(text, file=sys.stderr, flush=True)


def note_provider(asked: str, found: str) -> None:
    """Say what `auto` chose; a device that was named is the one in use, or an error."""
    if asked == "auto":
        note(f"running on {found}")


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """A table on stdout: the first column to the left, the others to the right."""
    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, header in enumerate(headers):
        grid.add_column(header, justify="left" if i == 0 else "right", no_wrap=i > 0)
    for row in rows:
        grid.add_row(*(str(cell) for cell in row))
    # A pipe has no width: without one rich would cut at 80 columns.
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print(grid)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A `Progress` that draws stage, share, rate and remaining time on stderr; silent when that is no terminal."""
    if not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
        bars.TextColumn("{task.fields[rate]}"),
    )
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, bars.TaskID] = {}

        def listen(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                for other in tasks.values():
                    bar.stop_task(other)
                tasks[stage] = bar.add_task(stage, total=total or None, rate="")
            speed = next(task.speed for task in bar.tasks if task.id == tasks[stage])
            bar.update(tasks[stage], completed=done, total=total or None, rate=f"{speed:.1f}/s" if speed else "")

        yield listen


def hush_libraries(online: bool = False) -> None:
    """Keep the libraries of the build side off stderr, and off the network too; before their first import.

    Whatever they find wrong with a checkpoint edgegeo judges itself, and says so in a line that names the remedy.
    online: a checkpoint is named by its hub repository, which has to be asked, and a download shows its bar.
    """
    quiet = () if online and sys.stderr.isatty() else ("HF_HUB_DISABLE_PROGRESS_BARS",)
    for name in ("HF_HUB_DISABLE_TELEMETRY", *quiet, *(() if online else ("HF_HUB_OFFLINE",))):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    for name in ("bitsandbytes", "peft", "torch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # By where they are raised, so that edgegeo's own warnings stay.
    warnings.filterwarnings("ignore", module=r"(bitsandbytes|huggingface_hub|peft|torch|transformers)\b")


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage; a dash for what was not measured."""
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def megabytes(count: int) -> str:
    """Bytes in MB of 2**20."""
    return f"{count / 2**20:.1f} MB"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays, without importing numpy here
        return _finite(value.tolist())
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
