"""Places of the planet written as a data set that other tools read too, pictures included."""

import csv
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgegeo.datasets.planet_places import sft_row
from edgegeo.datasets.registry import open_dataset
from edgegeo.datasets.sets import Loaded
from edgegeo.datasets.sharegpt import write_sharegpt
from edgegeo.errors import InputError
from edgegeo.planet import DEFAULT_SEED, Place, Planet
from edgegeo.planet.photos import write_photo
from edgegeo.planet.splits import SPLITS
from edgegeo.progress import Progress, silent

KARPATHY = {"train": "train", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class PlanetFolder:
    """What to write."""

    form: str
    """ "retrieval": captions of satellite tiles in a Karpathy split file, the tiles, photos with EXIF GPS, and a CSV
    for `edgegeo index build`. "sft": photos and conversations in sharegpt form."""
    places: int
    split: str = "train"
    captions: int = 5
    """Texts a place (retrieval)."""
    answers: str = "caption"
    """ "caption" or "tag" (sft)."""
    size: int = 256
    planet_seed: int = DEFAULT_SEED
    seed: int = 0
    """Phrasing of the geo-captions."""

    def __post_init__(self) -> None:
        if self.form not in ("retrieval", "sft") or self.split not in SPLITS or self.answers not in ("caption", "tag"):
            raise InputError(
                f"form is retrieval or sft, split one of {', '.join(SPLITS)}, answers caption or tag; "
                f"got {self.form}, {self.split}, {self.answers}"
            )
        if self.places < 1 or self.captions < 1:
            raise InputError("places and captions must be at least 1")


def write_planet(folder: str | Path, what: PlanetFolder, progress: Progress = silent) -> Loaded:
    """Draw and write the first places of a split into a folder that is absent or empty; returns it read back.

    Written beside the target and moved there whole, so that nothing half-written stays.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is there already and not empty; name another folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        draft.chmod(0o755)
        try:
            write = _write_retrieval if what.form == "retrieval" else _write_sft
            name = write(draft, what, progress)
            if target.exists():
                target.rmdir()
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise InputError(f"can't write {target} ({error.strerror or error}); free some space or name another") from None
    split = KARPATHY[what.split] if what.form == "retrieval" else what.split
    return open_dataset(name, target, split, strict=True, check_images=True)


def _places(what: PlanetFolder) -> list[tuple[str, Place]]:
    places = Planet(what.planet_seed).places(what.split, what.places)
    return [(f"{what.split}-{number:05d}", place) for number, place in enumerate(places)]


def _write_retrieval(draft: Path, what: PlanetFolder, progress: Progress) -> str:
    planet = Planet(what.planet_seed)
    for name in ("tiles", "photos"):
        (draft / name).mkdir()
    images, rows = [], []
    for number, (name, place) in enumerate(_places(what)):
        file = f"{place.lat:.4f},{place.lon:.4f}_{name}.png"
        planet.satellite(place.lat, place.lon, what.size).save(draft / "tiles" / file)
        write_photo(draft / "photos" / f"{name}.jpg", planet, place.lat, place.lon, size=what.size)
        texts = [planet.describe(place.lat, place.lon, k) for k in range(what.captions)]
        first = number * what.captions
        images.append(
            {
                "filepath": "tiles",
                "filename": file,
                "imgid": number,
                "split": KARPATHY[what.split],
                "lat": place.lat,
                "lon": place.lon,
                "sentids": list(range(first, first + what.captions)),
                "sentences": [
                    {"raw": text, "tokens": text.lower().rstrip(".").split(), "imgid": number, "sentid": first + k}
                    for k, text in enumerate(texts)
                ],
            }
        )
        rows.append((f"tiles/{file}", place.lat, place.lon, name))
        progress("drawing places", number + 1, what.places)
    whole = {"images": images, "dataset": "planet"}
    (draft / "dataset_planet.json").write_text(json.dumps(whole, indent=1), encoding="utf-8")
    with (draft / "tiles.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "lat", "lon", "id"))
        writer.writerows(rows)
    return "karpathy"


def _write_sft(draft: Path, what: PlanetFolder, progress: Progress) -> str:
    planet = Planet(what.planet_seed)
    (draft / "images").mkdir()
    rows = []
    for number, (name, place) in enumerate(_places(what)):
        file = write_photo(draft / "images" / f"{name}.jpg", planet, place.lat, place.lon, size=what.size)
        rows.append(sft_row(planet, place, name, file, what.answers, what.seed))
        progress("drawing places", number + 1, what.places)
    write_sharegpt(draft / f"{what.split}.json", rows)
    return "sharegpt"
