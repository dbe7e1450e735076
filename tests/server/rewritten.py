"""A bundle with something else in its manifest."""

from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

from edgegeo.bundle import open_bundle, publish, staging


def rewritten(original: Path, target: Path, /, **changes: Any) -> Path:
    """A bundle like the original, written to `target`."""
    with staging(target) as folder:
        copytree(original, folder, dirs_exist_ok=True)
        (folder / "edgegeo.json").unlink()
        return publish(folder, replace(open_bundle(original).manifest, **changes), target).path
