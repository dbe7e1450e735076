"""The planet as its callers see it: pictures, words, splits, errors."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from edgegeo.errors import InputError
from edgegeo.planet import DEFAULT_SEED, Place, Planet
from edgegeo.planet.contact import contact_sheet
from edgegeo.planet.splits import SPLITS, split_of

# To renew these on purpose (every trained checkpoint of the planet then needs training again), run
#   python -m pytest tests/planet -k pins
# and copy the hashes of the failure message. They hold for Pillow 11.2 to 13 and NumPy 1.26 to 2.4.
PINS = {
    "tiles": "d152ed2ce70c94af",
    "photos": "99f6932486ac6dd7",
    "texts": "c912c45f9a007900",
    "overview": "dd809a173f8684a8",
}


@pytest.fixture(scope="module")
def planet() -> Planet:
    return Planet()


@pytest.fixture(scope="module")
def places(planet: Planet) -> list[Place]:
    return planet.places("validation", 150)


def _hash(parts: list[bytes]) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def test_pins(planet: Planet, places: list[Place]) -> None:
    some = places[:12]
    found = {
        "tiles": _hash([planet.satellite(p.lat, p.lon).tobytes() for p in some]),
        "photos": _hash([planet.ground(p.lat, p.lon).tobytes() for p in some]),
        "texts": _hash([planet.describe(p.lat, p.lon, v).encode() for p in some for v in range(4)]),
        "overview": _hash([planet.overview(256).tobytes()]),
    }
    assert found == PINS


def test_same_seed_same_planet_other_seed_other_planet(places: list[Place]) -> None:
    p = places[0]
    one, again, other = Planet(), Planet(DEFAULT_SEED), Planet(DEFAULT_SEED + 1)
    assert one.satellite(p.lat, p.lon).tobytes() == again.satellite(p.lat, p.lon).tobytes()
    assert one.satellite(p.lat, p.lon).tobytes() != other.satellite(p.lat, p.lon).tobytes()
    assert not np.array_equal(one.coordinates("test", 50), other.coordinates("test", 50))


@pytest.mark.parametrize("size", [16, 128, 256, 300])
def test_pictures_have_the_size_asked_for(planet: Planet, places: list[Place], size: int) -> None:
    p = places[1]
    for picture in (planet.satellite(p.lat, p.lon, size), planet.ground(p.lat, p.lon, size=size)):
        assert picture.size == (size, size)
        assert picture.mode == "RGB"


def test_a_smaller_picture_shows_the_same_scene(planet: Planet, places: list[Place]) -> None:
    for p in places[:8]:
        for render in (planet.satellite, planet.ground):
            large, small = render(p.lat, p.lon, size=256), render(p.lat, p.lon, size=128)
            shrunk = np.asarray(large.resize((128, 128), Image.Resampling.BOX), np.float64)
            assert np.abs(shrunk - np.asarray(small, np.float64)).mean() < 14.0


def test_neighbours_differ_and_headings_differ(planet: Planet, places: list[Place]) -> None:
    p = places[2]
    assert planet.satellite(p.lat, p.lon).tobytes() != planet.satellite(p.lat, p.lon + 0.001).tobytes()
    assert planet.ground(p.lat, p.lon, 0).tobytes() != planet.ground(p.lat, p.lon, 180).tobytes()
    assert planet.ground(p.lat, p.lon, 370).tobytes() == planet.ground(p.lat, p.lon, 10).tobytes()
    assert planet.ground(p.lat, p.lon).tobytes() == planet.ground(p.lat, p.lon, p.heading).tobytes()


def test_splits_are_disjoint_stable_and_on_land(planet: Planet) -> None:
    cells: dict[str, set[tuple[int, int]]] = {}
    for index, split in enumerate(SPLITS):
        spots = planet.coordinates(split, 3000)
        assert np.array_equal(planet.coordinates(split, 40), spots[:40])
        assert not np.array_equal(planet.coordinates(split, 40, seed=1), spots[:40])
        assert (split_of(spots[:, 0], spots[:, 1], planet.seed) == index).all()
        assert planet.world.is_land(spots[:, 0], spots[:, 1]).all()
        assert len(np.unique(spots, axis=0)) == len(spots)
        cells[split] = {(int(lat + 90), int(lon + 180)) for lat, lon in spots}
    shares = np.bincount(split_of(*_random_points(20_000), planet.seed), minlength=3) / 20_000
    assert np.abs(shares - [0.9, 0.05, 0.05]).max() < 0.01


def _random_points(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return np.degrees(np.arcsin(rng.uniform(-1, 1, n))), rng.uniform(-180, 180, n)


def test_places_are_spread_evenly_over_land(planet: Planet) -> None:
    lat, lon = _random_points(20_000)
    land = planet.world.is_land(lat, lon)
    assert 0.30 < land.mean() < 0.42
    spots = planet.coordinates("train", 20_000)
    assert abs((np.abs(lat[land]) > 45).mean() - (np.abs(spots[:, 0]) > 45).mean()) < 0.03


def test_places_equal_place_at_the_same_spot(planet: Planet, places: list[Place]) -> None:
    assert places[:10] == planet.places("validation", 10)
    for p in places[:10]:
        assert planet.place(p.lat, p.lon) == p
        assert planet.place(p.lat, p.lon + 360.0) == p
        assert p.land


def test_facts_have_the_same_short_answers_everywhere(places: list[Place]) -> None:
    keys = set(places[0].facts())
    for p in places:
        facts = p.facts()
        assert set(facts) == keys
        assert all(1 <= len(answer.split()) <= 4 for answer in facts.values())
    assert len({p.biome for p in places}) == 8
    assert len({p.region.index for p in places}) > 40


def test_no_two_things_are_built_in_the_same_octant(places: list[Place]) -> None:
    for p in places:
        used = [o for o in (*p.landmark_octants, p.settlement_octant, p.forest_octant) if o >= 0]
        if p.water == "lake":
            used.append(p.water_octant)
        assert len(used) == len(set(used))
        assert not {p.road, p.road + 4} & set(used)


def test_the_sea_can_be_looked_at(planet: Planet) -> None:
    lat, lon = next((a, b) for a in range(-60, 60, 5) for b in range(-180, 180, 5) if not planet.is_land(a, b))
    assert planet.place(lat, lon).facts()["biome"] == "sea"
    assert "sea" in planet.describe(lat, lon)
    for picture in (planet.satellite(lat, lon), planet.ground(lat, lon)):
        red, _, blue = np.asarray(picture, np.float64).mean((0, 1))
        assert blue > red


@pytest.mark.parametrize(("lat", "lon"), [(float("nan"), 0.0), (0.0, float("inf")), (90.5, 0.0), (-91.0, 0.0)])
def test_bad_coordinates_are_refused(planet: Planet, lat: float, lon: float) -> None:
    for call in (planet.place, planet.satellite, planet.ground, planet.describe, planet.is_land):
        with pytest.raises(InputError, match=r"coordinates|latitude"):
            call(lat, lon)


def test_other_bad_input_is_refused(planet: Planet) -> None:
    with pytest.raises(InputError, match="split"):
        planet.places("holdout", 1)
    with pytest.raises(InputError, match="negative"):
        planet.places("test", -1)
    with pytest.raises(InputError, match="size"):
        planet.satellite(0, 0, 4)
    with pytest.raises(InputError, match="heading"):
        planet.ground(0, 0, float("nan"))
    assert planet.places("test", 0) == []


def test_poles_and_date_line(planet: Planet) -> None:
    assert planet.place(90, 10) == planet.place(90, -120)
    assert planet.place(10, 180) == planet.place(10, -180)
    for lat, lon in ((90, 0), (-90, 0), (0, 180), (0, -180)):
        assert planet.satellite(lat, lon, 32).size == (32, 32)
        assert planet.ground(lat, lon, size=32).size == (32, 32)


def test_contact_sheet_and_overview(planet: Planet) -> None:
    assert contact_sheet(planet, 3, columns=2, size=64).size == (280, 248)
    assert planet.overview(200).size == (200, 100)
