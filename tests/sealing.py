"""A bundle's manifest changed the way an exporter would write it: with a digest that fits."""

import json
from pathlib import Path
from typing import Any

from edgegeo.bundle import MANIFEST_NAME, digest_of


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a bundle, sealed."""
    text = json.dumps(manifest | {"digest": digest_of(manifest)})
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
