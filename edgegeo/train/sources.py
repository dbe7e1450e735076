"""What adapters learn from: pairs to retrieve and answers to write, of the planet or of any data set."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import ImageSpec
from edgegeo.datasets import Item, RetrievalSet, SftRow, SftSet, open_dataset, open_picture
from edgegeo.datasets.geocaption import caption_text
from edgegeo.datasets.planet_captions import geo_caption
from edgegeo.errors import TrainingError
from edgegeo.geo import Position
from edgegeo.planet import Planet
from edgegeo.progress import Progress
from edgegeo.runtime.pictures import Picture, prepare_picture, whole_layout
from edgegeo.train.data import Drawing, PlanetPlaces, planet_places
from edgegeo.train.sequences import Side
from edgegeo.train.settings import Data
from edgegeo.train.talk import gps_answer

Rows = NDArray[np.int64]
Generator = np.random.Generator
THREADS = 4
"""That open pictures of a data set; Pillow releases the interpreter while it decodes."""


@dataclass(frozen=True)
class Pair:
    """What belongs together: one query of each kind, and the target they all look for."""

    queries: tuple[Side, ...]
    target: Side


@dataclass(frozen=True)
class Lesson:
    """A picture, the answer to learn, and the true position. What is asked is the checkpoint's own prompt: the one
    that its bundle will ask."""

    picture: Picture
    answer: str
    position: Position


class Pairs(Protocol):
    """A source of pairs."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the queries of a pair."""
        ...

    groups: Rows
    """(N,) what each pair is of; equal numbers are never negatives of each other."""
    targets: Rows
    """(N,) which target each pair has: equal numbers are one and the same."""
    fingerprint: str
    """Hash of what the source holds."""
    refused: dict[str, int]
    """Rows that could not be used: reason and count."""

    def pairs(self, index: Rows, rng: Generator | None) -> list[Pair]:
        """The pairs of some rows; the generator chooses words, None takes the first."""
        ...


class Lessons(Protocol):
    """A source of lessons."""

    fingerprint: str
    refused: dict[str, int]

    def __len__(self) -> int: ...

    def lessons(self, index: Rows, rng: Generator | None) -> list[Lesson]:
        """The lessons of some rows."""
        ...


class PlanetSource:
    """Places of the planet from its cache: pairs text to tile and photo to tile, lessons of photos."""

    kinds = ("text", "photo")

    def __init__(self, places: PlanetPlaces, spec: ImageSpec, seed: int, form: str = "answer") -> None:
        self.places, self.spec, self.seed, self.form = places, spec, seed, form
        self.groups: Rows = np.arange(len(places.words))
        self.targets, self.refused = self.groups, dict[str, int]()
        self._layout, self._planet = whole_layout(spec), Planet(seed)
        facts = f"planet {seed} {len(places.words)} {spec.size} {places.words[0]} {places.words[-1]}"
        self.fingerprint = hashlib.sha256(facts.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.places.words)

    def pairs(self, index: Rows, rng: Generator | None) -> list[Pair]:
        """One caption and the photo look for the tile."""
        photos, tiles = self._pictures("photo", index), self._pictures("tile", index)
        words = []
        for row in index.tolist():
            captions = self.places.words[row].captions
            words.append(captions[0 if rng is None else rng.integers(len(captions))])
        return [Pair((w, p), t) for w, p, t in zip(words, photos, tiles, strict=True)]

    def lessons(self, index: Rows, rng: Generator | None) -> list[Lesson]:
        """The photo and its position, after a description or within a geo-caption if the form asks for it."""
        out = []
        for row, picture in zip(index.tolist(), self._pictures("photo", index), strict=True):
            words = self.places.words[row]
            answer = gps_answer(words.lat, words.lon)
            if self.form == "reason":
                captions = words.captions
                answer = f"{captions[0 if rng is None else rng.integers(len(captions))]} {answer}"
            elif self.form == "caption":
                place = self._planet.place(words.lat, words.lon)
                answer = caption_text(geo_caption(self._planet, place, f"{row}.jpg"))
            out.append(Lesson(picture, answer, Position(words.lat, words.lon)))
        return out

    def _pictures(self, kind: str, index: Rows) -> list[Picture]:
        spec, levels = self.spec, self.places.pictures(kind, index).transpose(0, 3, 1, 2)
        mean, std = (np.reshape(np.asarray(v, np.float32), (1, 3, 1, 1)) for v in (spec.mean, spec.std))
        pixels = (levels.astype(np.float32) * np.float32(spec.rescale) - mean) / std
        return [Picture({"pixel_values": one[None]}, self._layout) for one in pixels]


class SetSource:
    """Pairs of a retrieval data set, opened when they are drawn."""

    kinds = ("query",)

    def __init__(self, pairs: Sequence[tuple[Item, Item]], spec: ImageSpec, refused: dict[str, int]) -> None:
        self._pairs, self._spec, self.refused = list(pairs), spec, refused
        for item in (item for pair in self._pairs for item in pair):
            if item.text is not None and item.image is not None:
                raise TrainingError(
                    f"{item.id} is a text and a picture at once; this version embeds one or the other: "
                    "leave one column empty"
                )
        self.groups = _numbered([query.group for query, _ in self._pairs])
        self.targets = _numbered([target.id for _, target in self._pairs])
        digest = hashlib.sha256()
        for query, target in self._pairs:
            digest.update(f"{query.id}\t{query.text}\t{target.id}\n".encode())
        self.fingerprint = digest.hexdigest()

    def pairs(self, index: Rows, rng: Generator | None) -> list[Pair]:
        """Pictures are opened and prepared by a few threads."""
        chosen = [self._pairs[row] for row in index.tolist()]
        with ThreadPoolExecutor(THREADS) as pool:
            sides = list(pool.map(self._side, [item for pair in chosen for item in pair]))
        return [Pair((sides[i],), sides[i + 1]) for i in range(0, len(sides), 2)]

    def _side(self, item: Item) -> Side:
        return item.text if item.text is not None else prepare_picture(item.open(), self._spec)


class SftSource:
    """Conversations of a data set (GeoLocSFT's sharegpt rows)."""

    def __init__(self, rows: Sequence[SftRow], spec: ImageSpec, refused: dict[str, int]) -> None:
        self._rows, self._spec, self.refused = list(rows), spec, refused
        several = [row.id for row in self._rows if len(row.images) != 1]
        if several:
            raise TrainingError(f"{several[0]} has not one picture; a position is answered to one, so leave it out")
        digest = hashlib.sha256()
        for row in self._rows:
            digest.update(f"{row.id}\t{row.answer}\n".encode())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._rows)

    def lessons(self, index: Rows, rng: Generator | None) -> list[Lesson]:
        """The conversations as they stand; pictures are opened and prepared by a few threads."""
        rows = [self._rows[i] for i in index.tolist()]
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(self._lesson, rows))

    def _lesson(self, row: SftRow) -> Lesson:
        return Lesson(prepare_picture(open_picture(row.images[0]), self._spec), row.answer, row.position)


def open_pairs(data: Data, spec: ImageSpec, progress: Progress) -> tuple[Pairs, Pairs]:
    """(training, validation) pairs; of a data set, whole groups are held out by a seeded draw."""
    if data.name == "planet":
        train, held = _planet(data, spec, progress)
        return PlanetSource(train, spec, data.planet_seed), PlanetSource(held, spec, data.planet_seed)
    found = _opened(data)
    if not isinstance(found, RetrievalSet):
        raise TrainingError(f"{data.name} holds no pairs to retrieve; `edgegeo data list` says which data sets do")
    pairs = list(found.pairs())
    kept, held_out = _held_out([query.group for query, _ in pairs], data)
    sources = [SetSource([pairs[i] for i in rows], spec, found.report.reasons()) for rows in (kept, held_out)]
    return sources[0], sources[1]


def open_lessons(data: Data, spec: ImageSpec, form: str, progress: Progress) -> tuple[Lessons, Lessons]:
    """(training, validation) lessons."""
    if data.name == "planet":
        train, held = _planet(data, spec, progress)
        return PlanetSource(train, spec, data.planet_seed, form), PlanetSource(held, spec, data.planet_seed, form)
    found = _opened(data)
    if not isinstance(found, SftSet):
        raise TrainingError(f"{data.name} holds no conversations to learn; use a sharegpt file (see edgegeo data list)")
    # By picture: what is asked of it in another row would give the answer away.
    kept, held_out = _held_out([str(row.images[:1]) for row in found.rows], data)
    sources = [SftSource([found.rows[i] for i in rows], spec, found.report.reasons()) for rows in (kept, held_out)]
    return sources[0], sources[1]


def _opened(data: Data) -> Any:
    if data.split.lower().startswith("test"):
        raise TrainingError(f"training never reads a test split ({data.split}); name another with --set data.split=...")
    if data.root is None:
        raise TrainingError(f"where is {data.name}? name its folder with --data-root")
    return open_dataset(data.name, data.root, data.split)


def _planet(data: Data, spec: ImageSpec, progress: Progress) -> tuple[PlanetPlaces, PlanetPlaces]:
    if spec.max_tiles > 1 or spec.kind == "qwen2_5_vl":
        raise TrainingError(
            "the planet's places are kept as single squares, and this checkpoint's pictures are not; train with one "
            "tile, or write the places as a data set (edgegeo data planet) and name it with --data"
        )
    drawn = [
        planet_places(Drawing(data.cache, split, n, spec, data.planet_seed), progress)
        for split, n in (("train", data.places), ("validation", data.validation))
    ]
    return drawn[0], drawn[1]


def _numbered(names: Sequence[str]) -> Rows:
    numbers = {name: n for n, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)


def _held_out(groups: Sequence[str], data: Data) -> tuple[list[int], list[int]]:
    """Rows to learn from and rows of the groups held out; at most a fifth of the groups is."""
    names = sorted(set(groups))
    if len(names) < 5:
        raise TrainingError(f"{data.name} {data.split} has {len(names)} places; training needs at least 5")
    if data.validation < 1 or data.places < 2:
        raise TrainingError(
            f"data.validation must be at least 1 and data.places 2, not {data.validation} and {data.places}"
        )
    order = np.random.default_rng(data.planet_seed).permutation(len(names))
    count = min(data.validation, len(names) // 5)
    held = {names[i] for i in order[:count].tolist()}
    kept = {names[i] for i in order[count : count + data.places].tolist()}
    rows = range(len(groups))
    return [i for i in rows if groups[i] in kept], [i for i in rows if groups[i] in held]
