"""Places of the planet, drawn once into a cache that every training verb reads."""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import ImageSpec
from edgegeo.errors import TrainingError
from edgegeo.planet import Planet
from edgegeo.progress import Progress, silent
from edgegeo.runtime.pictures import prepare_picture

Bytes = NDArray[np.uint8]
CAPTIONS = 12
CHUNK = 500
KINDS = ("tile", "photo")


@dataclass(frozen=True)
class Words:
    """What is told about one place."""

    lat: float
    lon: float
    captions: tuple[str, ...]
    facts: dict[str, str]
    """Question to short answer; may be empty for data without annotations."""


class PlanetPlaces:
    """The first n places of a split of the planet, from a cache folder that `render` filled."""

    def __init__(self, folder: Path, n: int) -> None:
        files = [folder / f"words-{k:05d}.jsonl" for k in range(-(-n // CHUNK))]
        lacking = [file.name for file in files if not file.is_file()]
        if lacking:
            raise TrainingError(f"{folder} holds no {lacking[0]}; draw the places first (edgegeo train does it)")
        rows = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()][:n]
        self.words: Sequence[Words] = [
            Words(row["lat"], row["lon"], tuple(row["captions"]), row["facts"]) for row in rows
        ]
        self._pictures = {kind: np.load(folder / f"{kind}.npy", mmap_mode="r") for kind in KINDS}

    def pictures(self, kind: str, index: NDArray[np.int64]) -> Bytes:
        """Pictures (N, size, size, 3) in the order of `index`."""
        return np.asarray(self._pictures[kind][index])


@dataclass(frozen=True)
class Drawing:
    """One split of one planet, drawn at one size."""

    folder: Path
    split: str
    n: int
    spec: ImageSpec
    planet_seed: int

    @property
    def split_folder(self) -> Path:
        """Where the split's files lie."""
        return self.folder / self.split


def planet_places(drawing: Drawing, progress: Progress = silent, workers: int | None = None) -> PlanetPlaces:
    """The places of a split, drawing what the cache lacks; an interrupted drawing continues where it stopped."""
    _prepare(drawing)
    chunks = [k for k in range(-(-drawing.n // CHUNK)) if not _words_file(drawing, k).is_file()]
    stage = f"drawing {drawing.split} places"
    workers = workers or os.cpu_count() or 1
    if len(chunks) <= 1 or workers == 1:
        for done, chunk in enumerate(chunks):
            progress(stage, done, len(chunks))
            draw_chunk(drawing, chunk)
    else:
        with ProcessPoolExecutor(workers) as pool:
            for done, _ in enumerate(pool.map(draw_chunk, [drawing] * len(chunks), chunks), 1):
                progress(stage, done, len(chunks))
    return PlanetPlaces(drawing.split_folder, drawing.n)


def draw_chunk(drawing: Drawing, chunk: int) -> None:
    """Draw one chunk of places; its words file is written last and marks it as done."""
    planet = Planet(drawing.planet_seed)
    start = chunk * CHUNK
    spots = planet.coordinates(drawing.split, min(start + CHUNK, drawing.n))[start:]
    pictures = {kind: np.load(drawing.split_folder / f"{kind}.npy", mmap_mode="r+") for kind in KINDS}
    lines = []
    for row, (lat, lon) in enumerate(spots.tolist(), start):
        place = planet.place(lat, lon)
        pictures["tile"][row] = grey_levels(planet.satellite(lat, lon), drawing.spec)
        pictures["photo"][row] = grey_levels(planet.ground(lat, lon), drawing.spec)
        captions = [planet.describe(lat, lon, variant) for variant in range(CAPTIONS)]
        lines.append(json.dumps({"lat": place.lat, "lon": place.lon, "captions": captions, "facts": place.facts()}))
    for array in pictures.values():
        array.flush()
    target = _words_file(drawing, chunk)
    part = target.with_suffix(f".{os.getpid()}.part")
    part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(part, target)


def grey_levels(image: Any, spec: ImageSpec) -> Bytes:
    """The runtime's own preprocessing, before normalising: (size, size, 3) uint8."""
    made = prepare_picture(image, spec).inputs["pixel_values"][0]
    levels = (made * np.reshape(spec.std, (3, 1, 1)) + np.reshape(spec.mean, (3, 1, 1))) / spec.rescale
    return np.rint(levels).astype(np.uint8).transpose(1, 2, 0)


def _words_file(drawing: Drawing, chunk: int) -> Path:
    return drawing.split_folder / f"words-{chunk:05d}.jsonl"


def _prepare(drawing: Drawing) -> None:
    if drawing.n < 1:
        raise TrainingError(f"the number of {drawing.split} places must be positive, got {drawing.n}")
    folder = drawing.split_folder
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"planet_seed": drawing.planet_seed, "size": drawing.spec.size, "n": drawing.n}
    file = folder / "cache.json"
    if file.is_file():
        found = json.loads(file.read_text("utf-8"))
        if any(found.get(key) != facts[key] for key in ("planet_seed", "size")) or found["n"] < drawing.n:
            raise TrainingError(f"{folder} holds other places ({found}, asked for {facts}); name another --cache")
        return
    shape = (drawing.n, drawing.spec.size, drawing.spec.size, 3)
    for kind in KINDS:
        np.lib.format.open_memmap(folder / f"{kind}.npy", "w+", np.uint8, shape).flush()
    file.write_text(json.dumps(facts), encoding="utf-8")
