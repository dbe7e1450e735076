"""The demonstration planet as a data set: retrieval, positions of photos, or conversations; drawn when opened."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from edgegeo.datasets.form import Form
from edgegeo.datasets.geocaption import caption_text
from edgegeo.datasets.planet_captions import geo_caption
from edgegeo.datasets.protocol import EXACT_IMAGE, GPS
from edgegeo.datasets.reader import Reader
from edgegeo.datasets.sets import Drawn, GpsSample, GpsSet, Item, RetrievalSet, SftRow, SftSet
from edgegeo.errors import InputError
from edgegeo.geo import Position
from edgegeo.planet import DEFAULT_SEED, Place, Planet
from edgegeo.planet.splits import SPLITS

FORMS_OF_PLANET = ("retrieval", "gps", "sft")
ASK_CAPTION = (
    "<image>\n\nWhere was this photo taken? Reason from terrain, climate, roads, plants and buildings, rule out "
    "similar regions, and answer with the geo-caption JSON."
)
ASK_TAG = "<image>\n\nWhere was this photo taken? Answer with <answer> lat: LATITUDE lon: LONGITUDE </answer>."


def load_planet(
    reader: Reader,
    *,
    form: str = "retrieval",
    places: int = 1000,
    captions: int = 1,
    query: str = "text",
    answers: str = "caption",
    size: int = 256,
    planet_seed: int = DEFAULT_SEED,
    seed: int = 0,
) -> RetrievalSet | GpsSet | SftSet:
    """The first places of a split.

    form: "retrieval" (query: "text" or "photo", looked up among satellite tiles; captions: texts a place), "gps"
    (photos with their positions) or "sft" (photos with a geo-caption, or with the position alone: answers="tag").
    size: pixels of a picture's side. seed: phrasing of the geo-captions.
    """
    if form not in FORMS_OF_PLANET or query not in ("text", "photo") or answers not in ("caption", "tag"):
        raise InputError(
            f"form is one of {', '.join(FORMS_OF_PLANET)}, query text or photo, answers caption or tag; "
            f"got {form}, {query}, {answers}"
        )
    if places < 1 or captions < 1:
        raise InputError("places and captions must be at least 1")
    planet = Planet(planet_seed)
    spots = list(_named(reader, planet, places))
    if form == "gps":
        samples = tuple(
            GpsSample(name, Position(p.lat, p.lon), _view(p, "ground", size), "planet") for name, p in spots
        )
        return GpsSet(samples, (GPS,), reader.report())
    if form == "sft":
        rows = tuple(sft_row(planet, p, name, _view(p, "ground", size), answers, seed) for name, p in spots)
        return SftSet(rows, (GPS,), reader.report())
    queries: list[Item] = []
    for name, place in spots:
        where = Position(place.lat, place.lon)
        if query == "photo":
            queries.append(Item(f"{name}-photo", name, name, image=_view(place, "ground", size), position=where))
        else:
            told = (planet.describe(place.lat, place.lon, k) for k in range(captions))
            queries += [Item(f"{name}#{k}", name, name, text=text, position=where) for k, text in enumerate(told)]
    gallery = tuple(
        Item(name, name, name, image=_view(p, "satellite", size), position=Position(p.lat, p.lon)) for name, p in spots
    )
    return RetrievalSet(tuple(queries), gallery, (EXACT_IMAGE,), reader.report())


def sft_row(
    planet: Planet, place: Place, name: str, image: Path | Drawn, answers: str = "caption", seed: int = 0
) -> SftRow:
    """One conversation about a photo; the file is taken to be called NAME.jpg."""
    where = Position(place.lat, place.lon)
    if answers == "tag":
        answer = f"<answer> lat: {place.lat:.5f} lon: {place.lon:.5f} </answer>"
        return SftRow(name, (image,), ASK_TAG, answer, where)
    caption = geo_caption(planet, place, f"{name}.jpg", seed)
    return SftRow(name, (image,), ASK_CAPTION, caption_text(caption), where, caption)


def _named(reader: Reader, planet: Planet, places: int) -> Iterator[tuple[str, Place]]:
    for number, place in enumerate(planet.places(reader.split, places)):
        name = f"{reader.split}-{number:05d}"
        with reader.row(name):
            yield name, place


def _view(place: Place, view: Literal["satellite", "ground"], size: int) -> Drawn:
    return Drawn(place.seed, place.lat, place.lon, view, size)


FORMS = (
    Form("planet", "the demonstration planet", "no files: drawn when opened", SPLITS, load_planet, lambda root: None),
)
