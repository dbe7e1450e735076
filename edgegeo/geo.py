"""Places on the sphere and the distances between them."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import InputError

EARTH_RADIUS_KM = 6371.0088
"""Mean Earth radius (IUGG). Great-circle distances with it differ from geodesics by less than 0.6 %."""

GPS_THRESHOLDS_KM = (1.0, 25.0, 200.0, 750.0, 2500.0)
"""Street, city, region, country and continent: the thresholds of Im2GPS3k and GeoLocSFT (section 4)."""

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Position:
    """A point on the sphere, in degrees."""

    lat: float
    lon: float

    def __post_init__(self) -> None:
        check_position(self.lat, self.lon)


def check_position(lat: float, lon: float) -> None:
    """Raise InputError unless lat is in [-90, 90] and lon in [-180, 180] (NaN and infinities are neither)."""
    if not (math.isfinite(lat) and math.isfinite(lon)):
        raise InputError(f"coordinates must be finite numbers, got lat={lat} lon={lon}")
    if not -90.0 <= lat <= 90.0:
        raise InputError(f"latitude must be between -90 and 90 degrees, got {lat}")
    if not -180.0 <= lon <= 180.0:
        raise InputError(f"longitude must be between -180 and 180 degrees, got {lon}")


def wrap_longitude(lon: float) -> float:
    """The same meridian in [-180, 180)."""
    return (lon + 180.0) % 360.0 - 180.0


def distance_km(lat1: Any, lon1: Any, lat2: Any, lon2: Any) -> Any:
    """Great-circle distance in km by the haversine formula; scalars or arrays in degrees, broadcast together.

    NaN in gives NaN out, so that a missing prediction can be counted as a miss by the caller.
    """
    phi1, phi2 = np.radians(lat1), np.radians(lat2)
    half_dphi = (phi2 - phi1) / 2
    half_dlam = (np.radians(lon2) - np.radians(lon1)) / 2
    a = np.sin(half_dphi) ** 2 + np.cos(phi1) * np.cos(phi2) * np.sin(half_dlam) ** 2
    km = 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(a, 0.0, 1.0)))
    return float(km) if np.ndim(km) == 0 else km


def share_within(distances_km: Floats, threshold_km: float) -> float:
    """Share of distances at or below the threshold; NaN (no prediction) counts as a miss."""
    if distances_km.size == 0:
        raise InputError("no distances to score: the evaluation has no places")
    with np.errstate(invalid="ignore"):
        return float(np.mean(distances_km <= threshold_km))
