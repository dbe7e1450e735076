"""Writes the report files of a sweep."""

import os
from collections.abc import Sequence
from pathlib import Path

from edgegeo.bench.ledger import Row
from edgegeo.bench.markdown import render_markdown
from edgegeo.bench.page import render_page
from edgegeo.errors import InputError


def write_reports(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Write results.md and results.html for these rows beside results.jsonl; each is replaced whole or not at all."""
    files = {"markdown": folder / "results.md", "html": folder / "results.html"}
    texts = {"markdown": render_markdown(rows), "html": render_page(rows)}
    for kind, file in files.items():
        draft = file.with_name(file.name + ".part")
        try:
            draft.write_text(texts[kind], encoding="utf-8")
            os.replace(draft, file)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise InputError(
                f"{file} can't be written ({error.strerror or error}); free some space and retry"
            ) from None
    return files
