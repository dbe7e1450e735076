"""What the workers are fed: photos and descriptions of unseen planet places, written once to files.

The workers read files so that their memory and cold start hold nothing but the runtime.
"""

import json
import os
from pathlib import Path

from edgegeo.errors import InputError

TEXTS = "texts.json"


def write_inputs(folder: Path, count: int) -> None:
    """Make `count` JPEG photos and texts of test places in `folder`; what is there already is kept."""
    texts_file = folder / TEXTS
    if texts_file.exists() and len(json.loads(texts_file.read_text(encoding="utf-8"))) >= count:
        return
    from edgegeo.planet import Planet

    planet = Planet()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        texts = []
        for i, place in enumerate(planet.places("test", count)):
            planet.ground(place.lat, place.lon).save(folder / photo_name(i), quality=90)
            texts.append(planet.describe(place.lat, place.lon))
        draft = folder / f"{TEXTS}.part"
        draft.write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
        os.replace(draft, texts_file)
    except OSError as error:
        raise InputError(
            f"{folder} can't be written ({error.strerror or error}); choose another place with -o"
        ) from None


def read_inputs(folder: Path, count: int) -> tuple[list[str], list[bytes]]:
    """The first `count` texts and encoded photos."""
    texts = json.loads((folder / TEXTS).read_text(encoding="utf-8"))
    return texts[:count], [(folder / photo_name(i)).read_bytes() for i in range(count)]


def photo_name(index: int) -> str:
    """File name of the index-th photo."""
    return f"photo-{index:04d}.jpg"
