"""Tile and photo show the same place: colours of crops, roads and landmarks are in both, where the layout says."""

import math

import numpy as np
import pytest

from edgegeo.planet import Place, Planet
from edgegeo.planet.ground import Camera
from edgegeo.planet.satellite import light_table
from edgegeo.planet.scene import HALF, build_scene, octant_point


@pytest.fixture(scope="module")
def planet() -> Planet:
    return Planet()


def _near(picture: np.ndarray, colour: tuple[int, int, int], tolerance: float = 40.0) -> np.ndarray:
    return np.abs(picture.astype(np.float64) - np.array(colour)).max(-1) < tolerance


def _seen(place: Place, colour: tuple[int, int, int]) -> tuple[int, int, int]:
    table = light_table(place)
    return (table[colour[0]], table[256 + colour[1]], table[512 + colour[2]])


def test_crops_lie_on_their_sides_in_both_views(planet: Planet) -> None:
    checked = 0
    for p in planet.places("validation", 60):
        if p.region.fields == "circles" or p.water == "sea":
            continue
        scene = build_scene(p)
        tile = np.asarray(planet.satellite(p.lat, p.lon))
        photo = np.asarray(planet.ground(p.lat, p.lon, 45.0 * p.road))[120:]
        for side, sign in ((0, 1.0), (1, -1.0)):
            colour = _seen(p, scene.far[side].colour)
            other = _seen(p, scene.far[1 - side].colour)
            if np.abs(np.array(colour) - other).max() < 90:
                continue
            x, y = np.meshgrid((np.arange(256) + 0.5) / 256 * 2 - 1, 1 - (np.arange(256) + 0.5) / 256 * 2)
            right = sign * (x * scene.across[0] + y * scene.across[1]) > 0.1
            assert _near(tile, colour)[right].mean() > 2.0 * _near(tile, colour)[~right].mean()
            half = photo[:, 128:] if sign > 0 else photo[:, :128]
            assert _near(half, colour).mean() > 0.02
            checked += 1
    assert checked > 20


def test_the_default_photo_shows_the_first_landmark(planet: Planet) -> None:
    shown = 0
    places = planet.places("validation", 200)
    for p in places:
        x, y = octant_point(p.landmark_octants[0], 98.0)
        side, depth = Camera(p.heading, 512).turn(x, y)
        shown += depth > 0 and abs(side / depth) < math.tan(math.radians(50))
    assert shown > 0.9 * len(places)


def test_a_landmark_changes_the_photo_only_where_it_stands(planet: Planet) -> None:
    p = next(p for p in planet.places("validation", 50) if p.landmarks[0] == "water tower")
    towards = 45.0 * p.landmark_octants[0]
    blue = (40, 140, 220)
    facing = np.asarray(planet.ground(p.lat, p.lon, towards))
    away = np.asarray(planet.ground(p.lat, p.lon, towards + 180))
    assert _near(facing, _seen(p, blue), 12)[:, 80:176].sum() > 100
    assert _near(away, _seen(p, blue), 12).sum() < 40
    tile = np.asarray(planet.satellite(p.lat, p.lon))
    x, y = octant_point(p.landmark_octants[0], 98.0)
    column, row = round((x + HALF) / 320 * 256), round((HALF - y) / 320 * 256)
    assert _near(tile, _seen(p, blue), 40)[row - 20 : row + 20, column - 20 : column + 20].sum() > 100


def test_roofs_match(planet: Planet) -> None:
    p = next(p for p in planet.places("validation", 400) if p.settlement == "town" and p.region.roof == "purple")
    scene = build_scene(p)
    roof = _seen(p, scene.roof)
    tile = np.asarray(planet.satellite(p.lat, p.lon))
    photo = np.asarray(planet.ground(p.lat, p.lon, 45.0 * p.settlement_octant))
    assert _near(tile, roof).sum() > 300
    assert _near(photo, roof, 12).sum() > 60


def test_shadows_point_to_the_nearer_pole(planet: Planet) -> None:
    from edgegeo.planet.satellite import _shade_vector

    for p in planet.places("validation", 20):
        assert (_shade_vector(p)[1] > 0) == (p.lat >= 0)
