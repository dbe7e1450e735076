"""GPX 1.1 (topografix.com/GPX/1/1): a waypoint for each answer."""

from collections.abc import Sequence

from edgegeo.runtime.formats.located import Failed, Located, degrees
from edgegeo.runtime.formats.xml import Element, child, written

NAMESPACE = "http://www.topografix.com/GPX/1/1"
OWN = "urn:edgegeo:gpx:1"
"""Namespace of what GPX has no words for: radius_km, confidence, source."""


def gpx(found: Sequence[Located], failed: Sequence[Failed] = ()) -> str:
    """One waypoint an answer; answers without a position have none.

    Elements stand in the order of the schema (time, name, desc, type, extensions). GPX has no altitude-free fix kind
    and no accuracy in metres, so the radius goes to desc, for people, and to extensions, for programs.
    """
    root = Element("gpx", {"xmlns": NAMESPACE, "xmlns:edgegeo": OWN, "version": "1.1", "creator": "edgegeo"})
    for one in found:
        if one.answer.position is not None:
            _waypoint(root, one)
    return written(root)


def _waypoint(root: Element, one: Located) -> None:
    place = one.answer.position
    assert place is not None
    # The schema's longitudes end before 180: that meridian is -180.
    lon = degrees(place.lon)
    point = child(root, "wpt", lat=degrees(place.lat), lon="-180.000000" if lon == "180.000000" else lon)
    child(point, "time", one.stamp)
    child(point, "name", one.name)
    child(point, "desc", one.described)
    child(point, "type", "edgegeo")
    more = child(point, "extensions")
    for name, value in one.facts.items():
        if value is not None:
            child(more, f"edgegeo:{name}", value if isinstance(value, str) else f"{value:.6g}")
