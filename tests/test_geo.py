"""Positions and distances."""

import math

import numpy as np
import pytest

from edgegeo.errors import InputError
from edgegeo.geo import Position, distance_km, share_within, wrap_longitude


@pytest.mark.parametrize(
    ("a", "b", "km"),
    [
        ((0, 0), (0, 180), 20015.1),
        ((90, 0), (-90, 77), 20015.1),
        ((52.52, 13.405), (48.8566, 2.3522), 877.5),  # Berlin to Paris
        ((0, 179.9), (0, -179.9), 22.2),  # across the date line
        ((10, 20), (10, 20), 0.0),
    ],
)
def test_distances(a: tuple[float, float], b: tuple[float, float], km: float) -> None:
    assert distance_km(*a, *b) == pytest.approx(km, abs=0.1)


def test_distances_broadcast_and_keep_nan() -> None:
    km = distance_km(np.zeros(3), np.array([0.0, 1.0, math.nan]), 0.0, 0.0)
    assert km.shape == (3,)
    assert math.isnan(km[2])
    assert share_within(km, 25.0) == pytest.approx(1 / 3)  # NaN is a miss, never a hit


def test_no_places_is_an_error() -> None:
    with pytest.raises(InputError, match="no places"):
        share_within(np.array([]), 25.0)


@pytest.mark.parametrize(("lat", "lon"), [(math.nan, 0), (0, math.inf), (91, 0), (-90.01, 0), (0, 180.5)])
def test_impossible_positions_are_refused(lat: float, lon: float) -> None:
    with pytest.raises(InputError):
        Position(lat, lon)


def test_longitudes_wrap() -> None:
    assert [wrap_longitude(x) for x in (180.0, -180.0, 190.0, 540.0, 12.5)] == [
        -180.0,
        -180.0,
        -170.0,
        -180.0,
        12.5,
    ]
