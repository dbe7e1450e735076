"""Coasts and borders: traced exactly on synthetic worlds, right on the demo planet, and right on the Earth's file."""

import json
from itertools import pairwise

import numpy as np
import pytest

from edgegeo.planet import Planet
from edgegeo.server.basemap import (
    SCALE,
    Floats,
    closed_over_pole,
    contours,
    pack,
    planet_basemap,
    region_borders,
    unwrapped,
)
from edgegeo.server.state_api import PAGES

LAT = np.linspace(90, -90, 181)[:, None]
LON = np.linspace(-180, 180, 360, endpoint=False)[None]


def lines(packed: dict, kind: str) -> list[Floats]:
    """Rings or borders in degrees, as the page reads them."""
    return [np.cumsum(np.reshape(steps, (-1, 2)), axis=0) / packed["scale"] for steps in packed[kind]]


def inside(rings: list[Floats], lat: float, lon: float) -> bool:
    """Even-odd over every copy of the world, as the page fills."""
    crossed = 0
    (x0, y0), (x1, y1) = (np.concatenate([np.roll(ring, shift, axis=0) for ring in rings]).T for shift in (0, -1))
    cut = (y0 > lat) != (y1 > lat)
    at = x0[cut] + (lat - y0[cut]) / (y1[cut] - y0[cut]) * (x1[cut] - x0[cut])
    for turn in (-720, -360, 0, 360, 720):
        crossed += int((at + turn > lon).sum())
    return crossed % 2 == 1


def cap(lat: float, lon: float, degrees: float) -> Floats:
    """A world with land within a distance of one point."""
    a, b = np.deg2rad(LAT), np.deg2rad(lat)
    dot = np.sin(a) * np.sin(b) + np.cos(a) * np.cos(b) * np.cos(np.deg2rad(LON - lon))
    return np.cos(np.deg2rad(degrees)) * -1 + dot


@pytest.mark.parametrize("lon", [0.0, 179.5, -179.8])
def test_an_island_is_one_ring_of_its_own_size(lon: float) -> None:
    (ring,) = contours(cap(20.0, lon, 15.0))
    assert np.abs(np.diff(ring[:, 0])).max() < 2.0  # no jump at the date line
    assert ring[:, 1].max() == pytest.approx(35.0, abs=0.1)
    assert ring[:, 1].min() == pytest.approx(5.0, abs=0.1)
    for place, land in (((20, lon), True), ((34, lon), True), ((36, lon), False), ((20, lon + 17), False)):
        assert inside([ring], place[0], float(unwrapped(np.array([[place[1], 0.0]]))[0, 0])) is land


@pytest.mark.parametrize("pole", [90.0, -90.0])
def test_land_around_a_pole_is_closed_over_it(pole: float) -> None:
    (ring,) = contours(cap(pole, 0.0, 20.0))
    assert np.ptp(ring[:, 0]) == pytest.approx(360.0, abs=1.0)
    assert [inside([ring], pole * share, lon) for share in (0.95, 0.5, -0.95) for lon in (-179.0, 3.0, 178.0)] == (
        [True] * 3 + [False] * 6
    )


def test_a_sea_within_land_and_corners_that_touch() -> None:
    height = np.full((19, 36), -1.0)
    height[4:10, 4:12] = 1.0
    height[6:8, 7:9] = -1.0
    height[10, 12] = 1.0  # touches the island at a corner only
    rings = contours(height)
    assert len(rings) == 3
    assert inside(rings, 90 - 50.0, -180 + 50.0)
    assert not inside(rings, 90 - 65.0, -180 + 75.0)
    assert inside(rings, 90 - 100.0, -180 + 120.0)


def test_lines_run_on_past_the_date_line_and_begin_within_it() -> None:
    line = unwrapped(np.array([[540.0, 0.0], [-179.0, 1.0], [179.0, 2.0], [-178.0, 3.0]]))
    assert line[:, 0] == pytest.approx([-180.0, -179.0, -181.0, -178.0])
    ring = np.array([[0.0, 80.0], [10.0, 80.0], [5.0, 85.0], [0.0, 80.0]])
    assert closed_over_pole(ring, north=True) is ring


def test_borders_lie_where_two_centres_are_equally_near() -> None:
    a, o = np.deg2rad(LAT), np.deg2rad(LON)
    points = np.stack(np.broadcast_arrays(np.cos(a) * np.cos(o), np.cos(a) * np.sin(o), np.sin(a)), axis=-1)
    centres = np.array([[1.0, 0, 0], [0, 1.0, 0], [-1.0, 0, 0], [0, -1.0, 0]])
    region = np.argmax(points @ centres.T, axis=-1)
    height = np.where(LAT > -40.5, 1.0, -1.0) * np.ones_like(LON)
    made = region_borders(points, centres, region, height)
    inland = [line[np.abs(line[:, 1]) < 80] for line in made]
    meridians = [line[:, 0].mean() for line in inland if len(line) > 5]
    assert sorted(round(float(m)) % 360 for m in meridians) == [45, 135, 225, 315]
    for line in inland:
        assert np.ptp(line[:, 0]) < 0.6
        # At sea there is none: the shore is half-way between the rows at 40 and 41 south.
        assert line[:, 1].min() > -40.6


def test_packing_keeps_places_and_leaves_out_what_shrinks_to_a_point() -> None:
    ring = np.array([[-179.994, 1.234], [-180.5, 1.5], [-179.0, 2.0], [-179.994, 1.234]])
    dot = np.full((5, 2), 3.001)
    packed = json.loads(pack("x", [ring, dot], [ring[:2], dot], [["Häfen", 1.0, 2.0, 3.0]]))
    assert (len(packed["land"]), len(packed["borders"]), packed["labels"][0][0]) == (1, 1, "Häfen")
    assert np.abs(lines(packed, "land")[0] - ring).max() <= 0.5 / SCALE


def test_the_planets_coast_divides_land_from_sea() -> None:
    planet = Planet()
    text = planet_basemap(planet)
    packed = json.loads(text)
    assert len(text) < 150_000
    rings = lines(packed, "land")
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(-88, 88, 150), rng.uniform(-180, 180, 150)
    height = planet.world.sample(lat, lon)[:, 0]
    sure = np.abs(height) > 0.02
    assert sure.sum() > 100
    assert [inside(rings, a, o) for a, o in zip(lat[sure], lon[sure], strict=True)] == (height[sure] > 0).tolist()
    for line in lines(packed, "borders"):
        assert np.abs(np.diff(line[:, 0])).max() < 180
    names = {region.name for region in planet.world.regions}
    assert {label[0] for label in packed["labels"]} <= names
    assert all(a[3] >= b[3] for a, b in pairwise(packed["labels"]))


def test_the_planets_borders_divide_its_regions() -> None:
    planet = Planet()
    middles = [line[len(line) // 2] for line in lines(json.loads(planet_basemap(planet)), "borders") if len(line) > 8]
    apart = 0
    for lon, lat in middles:
        around = [(lat + a, lon + o) for a, o in ((1.5, 0), (-1.5, 0), (0, 1.5), (0, -1.5))]
        apart += len({planet.place(a, (o + 180) % 360 - 180).region for a, o in around if abs(a) < 90}) > 1
    assert apart >= 0.97 * len(middles)


def test_the_earths_file_is_small_and_right() -> None:
    text = (PAGES / "earth.json").read_text(encoding="utf-8")
    assert len(text.encode()) < 250_000
    packed = json.loads(text)
    assert packed["name"].startswith("Natural Earth")
    rings = lines(packed, "land")
    land = {"Vilnius": (54.7, 25.3), "Manaus": (-3.1, -60.0), "Alert": (82.3, -62.6), "Vostok": (-78.5, 106.8),
            "Anadyr": (65.5, 172.0), "Chukotka": (66.5, -175.0), "Suva": (-17.8, 178.0)}  # fmt: skip
    sea = {"Caspian": (41.0, 51.0), "Atlantic": (30.0, -40.0), "Bering": (58.0, -178.0), "North Pole": (89.0, 10.0),
           "Ross Sea": (-74.0, -179.0), "Hudson Bay": (59.0, -85.0)}  # fmt: skip
    assert {name: inside(rings, *place) for name, place in land.items()} == dict.fromkeys(land, True)
    assert {name: inside(rings, *place) for name, place in sea.items()} == dict.fromkeys(sea, False)
    labels = {label[0]: label for label in packed["labels"]}
    assert len(labels) > 200
    assert inside(rings, labels["Brazil"][2], labels["Brazil"][1])
    assert "public domain" in (PAGES / "earth.LICENSE.txt").read_text(encoding="utf-8")
