"""A circle on the sphere as polygons in longitude and latitude, right across the antimeridian and over the poles."""

import math

from edgegeo.geo import EARTH_RADIUS_KM, Position, check_position

Ring = list[tuple[float, float]]
"""(lon, lat) in degrees, counter-clockwise, the first point again at the end."""

_STEPS = 48
_WIDEST_KM = EARTH_RADIUS_KM * math.pi / 2 * 0.999


def circle(centre: Position, radius_km: float) -> list[Ring]:
    """The points within `radius_km` of `centre`: one ring, or two where the circle crosses the antimeridian.

    Meridian by meridian the circle is one stretch of latitudes, found in closed form from the spherical law of cosines;
    a ring goes east along the southern ends and back along the northern ones. No ring for a radius of 0, nor from a
    quarter of the Earth's circumference on (9,997 km), which says nothing that a map could show.
    """
    check_position(centre.lat, centre.lon)
    if not 0 < radius_km < _WIDEST_KM:
        return []
    lat, angle = math.radians(centre.lat), radius_km / EARTH_RADIUS_KM
    reach = _reach(lat, angle)
    rings = []
    for west, east, shift in _spans(reach, centre.lon):
        south, north = [], []
        for offset in _sampled(west, east, reach):
            low, high = _latitudes(lat, angle, math.radians(offset))
            lon = min(max(centre.lon + offset + shift, -180.0), 180.0)
            south.append((lon, low))
            north.append((lon, high))
        ring = south + north[::-1]
        ring = [point for i, point in enumerate(ring) if i == 0 or point != ring[i - 1]]
        if ring[-1] != ring[0]:
            ring.append(ring[0])
        if len(ring) > 3:
            rings.append(ring)
    return rings


def _reach(lat: float, angle: float) -> float:
    """Degrees of longitude from the centre to the circle's east end; 180 where a pole lies within."""
    if abs(lat) + angle >= math.pi / 2:
        return 180.0
    return math.degrees(math.asin(min(1.0, math.sin(angle) / math.cos(lat))))


def _spans(reach: float, lon: float) -> list[tuple[float, float, float]]:
    """Offsets (west, east) from the centre's longitude, cut at the antimeridian, and what brings them into range."""
    if reach == 180.0:
        return [(-180.0 - lon, 180.0 - lon, 0.0)]
    spans = [(max(-reach, -180.0 - lon), min(reach, 180.0 - lon), 0.0)]
    if lon - reach < -180.0:
        spans.append((-reach, -180.0 - lon, 360.0))
    if lon + reach > 180.0:
        spans.append((180.0 - lon, reach, -360.0))
    return [span for span in spans if span[1] - span[0] > 1e-9]


def _sampled(west: float, east: float, reach: float) -> list[float]:
    """Offsets from west to east: dense where the circle turns around at its ends, every 2 degrees around a pole."""
    if reach == 180.0:
        inner = [float(x) for x in range(-360, 361, 2)]
    else:
        inner = [reach * math.sin(math.pi * (i / _STEPS - 0.5)) for i in range(_STEPS + 1)]
    return [west, *(x for x in inner if west < x < east), east]


def _latitudes(lat: float, angle: float, offset: float) -> tuple[float, float]:
    """Southern and northern end, in degrees, of the circle's stretch on the meridian `offset` from its centre."""
    upright, level = math.sin(lat), math.cos(lat) * math.cos(offset)
    length = math.hypot(upright, level)
    turn = math.acos(min(1.0, math.cos(angle) / length)) if length > 0 else 0.0
    middle = math.atan2(upright, level)
    low, high = math.degrees(middle - turn), math.degrees(middle + turn)
    if lat + angle >= math.pi / 2:  # the north pole lies within: every meridian is covered up to it
        return max(low, -90.0), 90.0
    if lat - angle <= -math.pi / 2:
        # Mirrored: atan2 of a negative sine has its middle below, so the northern end is the one that is left.
        return -90.0, min(high, 90.0)
    return max(low, -90.0), min(high, 90.0)
