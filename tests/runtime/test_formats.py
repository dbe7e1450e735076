"""Documents read back by other readers than the code that wrote them."""

import csv
import io
import json
import math
import re
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_answers import NASTY, NOW, answer, broken, drawn, located, names, positions

from edgegeo.errors import InputError
from edgegeo.geo import Position, distance_km
from edgegeo.runtime.formats import WRITERS, Failed, Located, document
from edgegeo.runtime.formats.circle import circle

GPX = "{http://www.topografix.com/GPX/1/1}"
KML = "{http://www.opengis.net/kml/2.2}"
GPX_ORDER = [
    "ele", "time", "magvar", "geoidheight", "name", "cmt", "desc", "src", "link", "sym", "type", "fix", "sat", "hdop",
    "vdop", "pdop", "ageofdgpsdata", "dgpsid", "extensions",
]  # fmt: skip
"""wptType of the GPX 1.1 schema."""
KML_ORDER = ["name", "description", "TimeStamp", "styleUrl", "ExtendedData", "Point", "MultiGeometry"]
"""Feature elements of the KML 2.2 schema that occur here."""


def is_legal(text: str) -> bool:
    return not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", text)


@settings(max_examples=150, deadline=None)
@given(positions, names, st.none() | st.floats(0, 30_000))
def test_gpx_read_back(place: Position, name: str, radius: float | None) -> None:
    text = document("gpx", [located(place, radius, name), located(None, name="nowhere")])
    root = ElementTree.fromstring(text.encode())
    (point,) = root
    assert root.attrib["version"] == "1.1"
    assert point.tag == GPX + "wpt"
    lat, lon = float(point.attrib["lat"]), float(point.attrib["lon"])
    assert -90 <= lat <= 90
    assert -180 <= lon < 180
    assert distance_km(lat, lon, place.lat, place.lon) < 1e-4
    tags = [child.tag.removeprefix(GPX) for child in point]
    assert tags == sorted(tags, key=GPX_ORDER.index)
    assert point.findtext(GPX + "time") == "2026-11-20T23:59:58Z"
    said = point.findtext(GPX + "name") or ""
    if is_legal(name) and "\r" not in name:
        assert said == name
    found = root.findtext(".//{urn:edgegeo:gpx:1}radius_km")
    assert (found is None) == (radius is None)
    assert radius is None or math.isclose(float(found or "nan"), radius, rel_tol=1e-5, abs_tol=1e-300)


@settings(max_examples=100, deadline=None)
@given(positions, names, st.none() | st.floats(0.001, 9_000))
def test_kml_read_back(place: Position, name: str, radius: float | None) -> None:
    one = located(place, radius, name, tiles=(name, "]]></name><Placemark>"))
    root = ElementTree.fromstring(document("kml", [one]).encode())
    marks = list(root.iter(KML + "Placemark"))
    assert len(marks) == 3 + (radius is not None)
    for mark in marks:
        tags = [child.tag.removeprefix(KML) for child in mark]
        assert tags == sorted(tags, key=KML_ORDER.index)
    lon, lat = map(float, (marks[0].findtext(f"{KML}Point/{KML}coordinates") or "").split(","))
    assert distance_km(lat, lon, place.lat, place.lon) < 1e-4
    assert marks[-1].findtext(KML + "name") == "]]></name><Placemark>"
    assert "score 0.8000, p(yes) 0.500" in (marks[-1].findtext(KML + "description") or "")
    styles = {"#" + style.attrib["id"] for style in root.iter(KML + "Style")}
    assert {mark.findtext(KML + "styleUrl") for mark in marks} <= styles
    for edge in root.iter(KML + "LinearRing"):
        ring = [tuple(map(float, pair.split(","))) for pair in (edge.findtext(KML + "coordinates") or "").split()]
        assert ring[0] == ring[-1]
        assert len(ring) >= 4


def inside(lon: float, lat: float, ring: list[tuple[float, float]]) -> bool:
    """Even-odd rule in the plane of longitudes and latitudes, as a map program draws it."""
    crossings = 0
    for (x1, y1), (x2, y2) in pairwise(ring):
        if (y1 > lat) != (y2 > lat) and lon < x1 + (lat - y1) / (y2 - y1) * (x2 - x1):
            crossings += 1
    return crossings % 2 == 1


@settings(max_examples=300, deadline=None)
@given(
    positions,
    st.floats(1, 9_000),
    st.floats(-math.pi, math.pi),
    st.floats(0, 0.95) | st.floats(1.06, 1.5),
)
def test_a_point_is_in_the_drawn_circle_if_it_is_within_the_radius(
    centre: Position, radius: float, bearing: float, share: float
) -> None:
    rings = circle(centre, radius)
    assert 1 <= len(rings) <= 2
    for ring in rings:
        assert ring[0] == ring[-1]
        assert all(-180 <= lon <= 180 and -90 <= lat <= 90 for lon, lat in ring)
        area = sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairwise(ring))
        assert area >= 0, "counter-clockwise"
        assert all(abs(x1 - x2) < 180 or abs(y1) == abs(y2) == 90 for (x1, y1), (x2, y2) in pairwise(ring))
    lat, lon = ahead(centre, bearing, share * radius)
    if abs(lat) > 89.99 or abs(lon) > 179.999:  # on the seam of the map itself
        return
    assert any(inside(lon, lat, ring) for ring in rings) == (share < 1)


def ahead(start: Position, bearing: float, far_km: float) -> tuple[float, float]:
    """Where a great circle of this length ends."""
    angle, lat = far_km / 6371.0088, math.radians(start.lat)
    up = math.sin(lat) * math.cos(angle) + math.cos(lat) * math.sin(angle) * math.cos(bearing)
    end = math.asin(max(-1.0, min(1.0, up)))
    turn = math.atan2(math.sin(bearing) * math.sin(angle) * math.cos(lat), math.cos(angle) - math.sin(lat) * up)
    return math.degrees(end), (start.lon + math.degrees(turn) + 180) % 360 - 180


@pytest.mark.parametrize("place", [Position(90, 0), Position(-90, 77), Position(89.5, -180), Position(-88, 12)])
def test_a_circle_over_a_pole_covers_all_longitudes_to_it(place: Position) -> None:
    (ring,) = circle(place, 500)
    pole = math.copysign(90, place.lat)
    assert {(-180.0, pole), (180.0, pole)} <= set(ring)
    edge = [distance_km(place.lat, place.lon, lat, lon) for lon, lat in ring if lat != pole]
    assert len(edge) > 100
    assert edge == pytest.approx([500] * len(edge), rel=1e-9)


def test_a_circle_across_the_antimeridian_is_two_rings_that_meet_there() -> None:
    east, west = circle(Position(-17, 179.9), 100)
    assert max(lon for lon, _ in east) == 180
    assert min(lon for lon, _ in west) == -180
    assert min(lon for lon, _ in east) > 178
    assert max(lon for lon, _ in west) < -179
    assert sorted({lat for lon, lat in east if lon == 180}) == pytest.approx(
        sorted({lat for lon, lat in west if lon == -180})
    )


@pytest.mark.parametrize("radius", [0.0, -1.0, 10_000.0, 20_000.0, math.nan, math.inf])
def test_no_circle_for_a_radius_that_says_nothing(radius: float) -> None:
    assert circle(Position(10, 20), radius) == []


def test_geojson() -> None:
    one = located(Position(1.23456789, 179.99), 50.0, tiles=("t1",), candidates=(drawn(1, 2), drawn(3, 4)))
    found = json.loads(document("geojson", [one, located(None)]))
    roles = [feature["properties"]["role"] for feature in found["features"]]
    assert roles == ["answer", "radius", "candidate", "candidate", "hit"]
    assert found["features"][0]["geometry"] == {"type": "Point", "coordinates": [179.99, 1.234568]}
    assert found["features"][1]["geometry"]["type"] == "MultiPolygon"
    assert len(found["features"][1]["geometry"]["coordinates"]) == 2
    plain = json.loads(document("geojson", [located(Position(1, 2), 50.0)]))
    assert plain["features"][1]["geometry"]["type"] == "Polygon"


@settings(max_examples=100, deadline=None)
@given(positions, names, names)
def test_csv_read_back(place: Position, name: str, tile: str) -> None:
    text = document("csv", [located(place, 12.5, name, tiles=(tile,)), located(None)], [Failed(name, "bad\npicture")])
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["photo"] for row in rows] == [name, "a.jpg", name]
    assert [row["error"] for row in rows] == ["", "", "bad\npicture"]
    assert distance_km(float(rows[0]["lat"]), float(rows[0]["lon"]), place.lat, place.lon) < 1e-4
    assert (rows[0]["radius_km"], rows[0]["tile"], rows[1]["lat"]) == ("12.5", tile, "")


def test_json_keeps_every_digit_and_names_what_failed() -> None:
    one = located(Position(1.23456789012, 2), name=NASTY)
    found = json.loads(document("json", [one], [Failed("b", "why")]))
    assert found["answers"][0]["position"] == {"lat": 1.23456789012, "lon": 2}
    assert found["answers"][0]["photo"] == NASTY
    assert found["failed"] == [{"photo": "b", "error": "why"}]


def test_text_is_one_line_a_photo_whatever_it_is_called() -> None:
    lines = document("text", [located(Position(1, 2), 3.0, NASTY), located(None)], [Failed("b", "why")]).splitlines()
    assert len(lines) == 3
    assert lines[0].endswith("1.000000, 2.000000, by generation, within 3 km")
    assert not re.search("[\x00\x1b]", lines[0])
    assert lines[1:] == ["a.jpg: no position found", "b: why"]


@pytest.mark.parametrize("format", WRITERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, 90.001, -1e308])
def test_what_is_no_place_is_never_written(format: str, value: float) -> None:
    bad = broken(value)
    hit = replace(answer(None, tiles=("t",)).hits[0], position=bad)
    for wrong in (located(bad), Located("a.jpg", replace(answer(Position(1, 2)), hits=(hit,)), NOW)):
        with pytest.raises(InputError, match=r"a\.jpg"):
            document(format, [wrong])


@pytest.mark.parametrize("format", WRITERS)
@pytest.mark.parametrize("radius", [math.nan, math.inf, -1.0])
def test_what_is_no_radius_is_never_written(format: str, radius: float) -> None:
    with pytest.raises(InputError, match="radius"):
        document(format, [located(Position(1, 2), radius)])


@pytest.mark.parametrize("format", WRITERS)
def test_no_answers_are_a_valid_document(format: str) -> None:
    text = document(format, [])
    assert "nan" not in text
    if format in ("gpx", "kml"):
        ElementTree.fromstring(text)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InputError, match="gpx"):
        document("shapefile", [])
