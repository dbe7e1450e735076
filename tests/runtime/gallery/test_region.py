import json
from pathlib import Path

import numpy as np
import pytest

from edgegeo.errors import InputError
from edgegeo.geo import distance_km
from edgegeo.runtime.gallery.hilbert import BLOCK_ROWS, Caps, caps, curve
from edgegeo.runtime.gallery.region import Box, Circle, Polygons, Region

FIJI = [[[177, -19], [183, -19], [183, -15], [177, -15], [177, -19]]]


def sphere(count: int, seed: int = 0) -> np.ndarray:
    """Evenly spread points, some on the poles and the antimeridian."""
    rng = np.random.default_rng(seed)
    points = np.stack([np.degrees(np.arcsin(rng.uniform(-1, 1, count))), rng.uniform(-180, 180, count)], axis=1)
    points[:4] = [[90, 12], [-90, 0], [10, 180], [10, -180]]
    return points


def polygons(tmp_path: Path, geometry: object) -> Polygons:
    (tmp_path / "area.json").write_text(json.dumps(geometry))
    return Polygons.read(tmp_path / "area.json")


REGIONS = [
    Circle(10, 20, 50), Circle(89.9, 0, 300), Circle(-90, 0, 1000), Circle(0, 180, 800), Circle(0, 0, 21_000),
    Box(-20, 170, 20, -170), Box(60, -180, 90, 180), Box(-90, 5, -80, 6), Box(0, 0, 1, 1), Box(-5, 10, 5, -10),
]  # fmt: skip


@pytest.mark.parametrize("region", REGIONS, ids=str)
def test_no_block_with_a_point_inside_is_left_out(region: Region) -> None:
    points = sphere(20_000)
    points = points[np.argsort(curve(points))]
    inside = np.flatnonzero(region.holds(points))
    read = Caps(caps(points)).touched(region, len(points))
    covered = np.concatenate([np.empty(0, int), *(np.arange(*pair) for pair in read)])
    assert np.isin(inside, covered).all()
    assert (np.diff(read.ravel()) > 0).all()
    if 0 < len(inside) < 1000:
        assert len(covered) < len(inside) + 40 * BLOCK_ROWS


def test_points_out_of_order_only_cost_reading() -> None:
    points, region = sphere(5000), Circle(10, 20, 900)
    read = Caps(caps(points)).touched(region, len(points))
    covered = np.concatenate([np.arange(*pair) for pair in read])
    assert np.isin(np.flatnonzero(region.holds(points)), covered).all()


def test_what_is_inside() -> None:
    points = sphere(20_000)
    circle = Circle(-17, 179, 500)
    np.testing.assert_array_equal(circle.holds(points), distance_km(-17, 179, points[:, 0], points[:, 1]) <= 500)
    across = Box(-20, 170, 20, -170).holds(points)
    lat, lon = points.T
    np.testing.assert_array_equal(across, (np.abs(lat) <= 20) & ((lon >= 170) | (lon <= -170)))
    assert across[2:4].all()
    assert Box(80, 3, 90, 4).holds(points)[0]  # the pole has no longitude
    assert Box(-90, -180, 90, 180).holds(points).all()


def test_neighbours_on_the_curve_are_neighbours_on_the_ground() -> None:
    points = sphere(20_000)
    ordered = points[np.argsort(curve(points))]
    steps = distance_km(ordered[:-1, 0], ordered[:-1, 1], ordered[1:, 0], ordered[1:, 1])
    assert np.median(steps) < 200  # 20,000 points lie 160 km apart; unordered ones 10,000 km


def test_polygons(tmp_path: Path) -> None:
    points = sphere(20_000)
    lat, lon = points.T
    ring = [[0, 0], [30, 0], [30, 30], [0, 30], [0, 0]]
    hole = [[10, 10], [20, 10], [20, 20], [10, 20], [10, 10]]
    square = (lat > 0) & (lat < 30) & (lon > 0) & (lon < 30)
    holed = square & ~((lat > 10) & (lat < 20) & (lon > 10) & (lon < 20))
    area = polygons(
        tmp_path, {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring, hole]}}
    )
    np.testing.assert_array_equal(area.holds(points), holed)
    cut = {"type": "MultiPolygon", "coordinates": [
        [[[177, -19], [180, -19], [180, -15], [177, -15], [177, -19]]],
        [[[-180, -19], [-177, -19], [-177, -15], [-180, -15], [-180, -19]]],
    ]}  # fmt: skip
    fiji = (lat > -19) & (lat < -15) & ((lon > 177) | (lon < -177))
    for way in (cut, {"type": "Polygon", "coordinates": FIJI}):
        area = polygons(tmp_path, {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": way}]})
        np.testing.assert_array_equal(area.holds(points), fiji)
        assert fiji.sum() > 5
    cap = {"type": "Polygon", "coordinates": [[[-180, 60], [180, 60], [180, 90], [-180, 90], [-180, 60]]]}
    assert polygons(tmp_path, cap).holds(points)[4:].sum() == (lat[4:] > 60).sum()


def test_rings_that_cross_themselves(tmp_path: Path) -> None:
    angles = np.linspace(0, 2 * np.pi, 2001)
    coast = (10 + np.random.default_rng(0).uniform(0, 3, 2001))[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    coast[-1] = coast[0]
    touching = [[0, 0], [4, 0], [4, 4], [2, 0], [0, 4], [0, 0]]  # one corner on an edge
    for sound in (coast.tolist(), touching):
        assert polygons(tmp_path, {"type": "Polygon", "coordinates": [sound]}).holds(np.array([[1.0, 1.0]]))[0]
    coast[[700, 702]] = coast[[702, 700]]
    with pytest.raises(InputError, match="crosses itself near"):
        polygons(tmp_path, {"type": "Polygon", "coordinates": [coast.tolist()]})


def test_polygons_leave_out_no_block(tmp_path: Path) -> None:
    points = sphere(20_000, seed=1)
    points = points[np.argsort(curve(points))]
    for shape in (FIJI, [[[-190, 0], [-185, 0], [-185, 8], [-190, 0]]], [[[0, 0], [80, 70], [81, 70], [0, 0]]]):
        area = polygons(tmp_path, {"type": "Polygon", "coordinates": shape})
        inside = np.flatnonzero(area.holds(points))
        covered = np.concatenate([np.arange(*pair) for pair in Caps(caps(points)).touched(area, len(points))])
        assert len(inside)
        assert np.isin(inside, covered).all()
        assert len(covered) < len(points) / 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[1]", "has no Polygon"),
        ('{"type": "Point", "coordinates": [1, 2]}', "has no Polygon"),
        ('{"type": "Polygon"}', "no list"),
        ('{"type": "Polygon", "coordinates": []}', "has no Polygon"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 0]]]}', "at least four"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0], [2, 2]]]}', "the last equal"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 95], [1, 0], [0, 0]]]}', "within 90"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, "x"], [1, 0], [0, 0]]]}', "longitude, latitude"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, NaN], [1, 0], [0, 0]]]}', "within 90"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [9, 0], [0, 9], [0, 0]]]}', "near longitude 4.5"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [2, 2], [0, 0]]]}', "encloses nothing"),
    ],
)
def test_files_without_a_polygon(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "area.json").write_text(text)
    with pytest.raises(InputError, match=words):
        Polygons.read(tmp_path / "area.json")


def test_places_that_are_none(tmp_path: Path) -> None:
    for make in (
        lambda: Circle(91, 0, 1), lambda: Circle(0, 0, 0), lambda: Circle(0, 0, float("nan")),
        lambda: Circle(0, 0, float("inf")),
        lambda: Box(1, 0, 0, 1), lambda: Box(0, 0, 91, 0), lambda: Box(0, -181, 1, 0),
        lambda: Polygons.read(tmp_path / "none.json"),
    ):  # fmt: skip
        with pytest.raises(InputError):
            make()
