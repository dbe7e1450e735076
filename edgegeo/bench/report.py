"""Writes the report files of a sweep."""

import os
from collections.abc import Sequence
from pathlib import Path

from edgegeo.bench.columns import with_changes
from edgegeo.bench.figure import PANELS, render_png
from edgegeo.bench.latex import render_latex
from edgegeo.bench.markdown import render_markdown
from edgegeo.bench.page import render_page
from edgegeo.bench.rows import Row
from edgegeo.bench.spreadsheet import render_csv
from edgegeo.errors import InputError

FORMATS = ("md", "csv", "html", "png", "tex")
STEM = "results"


def write_reports(
    rows: Sequence[Row],
    folder: Path,
    formats: Sequence[str] = ("md", "html"),
    about: str = "",
    costs: Sequence[str] = PANELS,
) -> dict[str, Path]:
    """Write results.FORMAT for these rows; each file is replaced whole or not at all. Returns format -> file.

    costs: what a PNG draws accuracy against, names in `edgegeo.bench.front.COSTS`.
    """
    told = with_changes(rows)
    return {kind: _write(folder / f"{STEM}.{kind}", _render(kind, told, about, costs)) for kind in formats}


def _render(kind: str, rows: Sequence[Row], about: str, costs: Sequence[str]) -> bytes:
    if kind == "png":
        return render_png(rows, costs)
    texts = {"md": render_markdown, "html": render_page}
    if kind in texts:
        return texts[kind](rows, about).encode()
    return {"csv": render_csv, "tex": render_latex}[kind](rows).encode()


def _write(file: Path, content: bytes) -> Path:
    draft = file.with_name(file.name + ".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        os.replace(draft, file)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise InputError(f"{file} can't be written ({error.strerror or error}); free some space and retry") from None
    return file
