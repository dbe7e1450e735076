"""The pyramid's numbers by hand: OGC 17-083r4, annex D, and the worked examples of the slippy-map convention."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegeo.errors import InputError
from edgegeo.runtime.tiles.mercator import (
    HALF_WORLD_M,
    MAX_LAT,
    Tile,
    bounds_m,
    check_zoom,
    coordinates_of,
    flipped,
    ground_m,
    place_of,
)


def test_the_world_is_one_tile() -> None:
    assert Tile(0, 0, 0).centre == place_of(0, 0.5, 0.5)
    assert (Tile(0, 0, 0).centre.lat, Tile(0, 0, 0).centre.lon) == (0.0, 0.0)
    assert pytest.approx(85.0511287798066, abs=1e-12) == MAX_LAT
    assert pytest.approx(20037508.342789244, abs=1e-6) == HALF_WORLD_M
    assert ground_m(0, 0) / 256 == pytest.approx(156543.03392804097, abs=1e-8)


def test_centres_worked_by_hand() -> None:
    # Zoom 1: a quarter down the square is atan(sinh(pi/2)).
    assert Tile(1, 0, 0).centre.lat == pytest.approx(66.51326044311186, abs=1e-11)
    assert Tile(1, 0, 0).centre.lon == -90.0
    assert Tile(1, 1, 1).centre.lat == pytest.approx(-66.51326044311186, abs=1e-11)
    # Zoom 2, second row: atan(sinh(pi/4)).
    assert Tile(2, 1, 1).centre.lat == pytest.approx(40.97989806962013, abs=1e-11)
    assert Tile(2, 1, 1).centre.lon == -45.0
    assert Tile(17, 65544, 43582).id == "17/65544/43582"


@pytest.mark.parametrize(
    ("z", "lat", "lon", "x", "y"),
    [
        (17, 51.51202, 0.02435, 65544, 43582),  # the convention's own example, in London
        (10, -0.0001, 179.9999, 1023, 512),
        (1, 0.0001, -0.0001, 0, 0),
        (1, -0.0001, 0.0001, 1, 1),
    ],
)
def test_tiles_of_known_places(z: int, lat: float, lon: float, x: int, y: int) -> None:
    found = coordinates_of(z, lat, lon)
    assert (math.floor(found[0]), math.floor(found[1])) == (x, y)
    centre = Tile(z, x, y).centre
    assert abs(centre.lon - lon) <= 180 / 2**z
    assert abs(centre.lat - lat) <= 180 / 2**z


def test_bounds_are_those_of_the_projection() -> None:
    assert bounds_m(0, 0, 0) == pytest.approx((-HALF_WORLD_M, -HALF_WORLD_M, HALF_WORLD_M, HALF_WORLD_M))
    assert bounds_m(1, 1, 0) == pytest.approx((0, 0, HALF_WORLD_M, HALF_WORLD_M))
    assert bounds_m(2, 1, 3) == pytest.approx((-HALF_WORLD_M / 2, -HALF_WORLD_M, 0, -HALF_WORLD_M / 2))
    # At 60 degrees metres of the projection are twice those on the ground.
    assert ground_m(10, 60) == pytest.approx(ground_m(10, 0) / 2)


def test_rows_from_the_south() -> None:
    assert [flipped(2, y) for y in range(4)] == [3, 2, 1, 0]
    assert flipped(0, 0) == 0
    for zoom in (-1, 31):
        with pytest.raises(InputError, match="zoom"):
            check_zoom(zoom)


@given(st.integers(0, 22), st.floats(-85, 85), st.floats(-180, 179.9))
def test_there_and_back(z: int, lat: float, lon: float) -> None:
    back = place_of(z, *coordinates_of(z, lat, lon))
    assert back.lat == pytest.approx(lat, abs=1e-7)
    assert back.lon == pytest.approx(lon, abs=1e-7)
