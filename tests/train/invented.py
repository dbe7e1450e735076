"""Two invented places, and settings small enough for seconds."""

from pathlib import Path
from typing import Any

from edgegeo.train.data import Words

WORDS = [
    Words(-12.3, 45.6, ("Dry desert with a sand road.", "A sand road."), {"biome": "desert", "water side": "north"}),
    Words(61.0, -9.8, ("A lake to the north.", "Taiga."), {"biome": "taiga", "water side": "none"}),
]
TINY = {"image_size": 32, "hidden": 32, "vision_layers": 1, "text_layers": 1, "kv_heads": 1, "ffn": 32, "vocab": 512}


def tiny_settings(out: Path, data: Any, **changes: Any) -> Any:
    """Two steps on the tiny world."""
    from edgegeo.train.settings import BaseSettings, Shape

    given = {"steps": 2, "batch": 4, "talk": 2, "warmup": 1, "validate_every": 1, "threads": 1, **changes}
    return BaseSettings(out=out, data=data, shape=Shape(**TINY), **given)


def quick(**changes: Any) -> Any:
    """A schedule of seconds."""
    from edgegeo.train.settings import Schedule

    given = {"steps": 2, "batch": 4, "warmup": 1, "validate_every": 1, "save_every": 1, "threads": 1, **changes}
    return Schedule(**given)
