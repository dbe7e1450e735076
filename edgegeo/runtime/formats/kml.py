"""KML 2.2 (OGC 07-147r2): the answers, their circles, and the tiles that spoke for them."""

from collections.abc import Sequence

from edgegeo.geo import Position
from edgegeo.runtime.formats.circle import Ring, circle
from edgegeo.runtime.formats.located import Failed, Located, degrees
from edgegeo.runtime.formats.xml import Element, child, written

NAMESPACE = "http://www.opengis.net/kml/2.2"
_STYLES = {"answer": "ff3c14dc", "radius": "663c14dc", "tile": "ffc8a01e"}
"""Colours as aabbggrr: a red answer in its transparent circle, blue tiles."""


def kml(found: Sequence[Located], failed: Sequence[Failed] = ()) -> str:
    """A folder for each answer: its placemark, its circle, cut at the antimeridian, and its tiles."""
    root = Element("kml", {"xmlns": NAMESPACE})
    top = child(root, "Document")
    child(top, "name", "edgegeo")
    for name, colour in _STYLES.items():
        _style(child(top, "Style", id=name), name, colour)
    for one in found:
        _folder(child(top, "Folder"), one)
    return written(root)


def _style(style: Element, name: str, colour: str) -> None:
    kind = "PolyStyle" if name == "radius" else "IconStyle"
    child(child(style, kind), "color", colour)


def _folder(folder: Element, one: Located) -> None:
    answer = one.answer
    child(folder, "name", one.name)
    if answer.position is None:
        child(folder, "description", "no position found")
    else:
        mark = _placemark(folder, one.name, one.described, "answer", one.stamp)
        data = child(mark, "ExtendedData")
        for name, value in one.facts.items():
            if value is not None:
                text = value if isinstance(value, str) else f"{value:.6g}"
                child(child(data, "Data", name=name), "value", text)
        _point(mark, answer.position)
        if answer.radius_km is not None and (rings := circle(answer.position, answer.radius_km)):
            area = child(
                _placemark(folder, f"{one.name}: within {answer.radius_km:.3g} km", None, "radius"), "MultiGeometry"
            )
            for ring in rings:
                _polygon(area, ring)
    for rank, hit in enumerate(answer.hits, start=1):
        sure = "" if hit.rerank_score is None else f", p(yes) {hit.rerank_score:.3f}"
        said = f"tile {rank} of {one.name}: score {hit.score:.4f}{sure}"
        _point(_placemark(folder, hit.id, said, "tile"), hit.position)


def _placemark(folder: Element, name: str, said: str | None, style: str, time: str | None = None) -> Element:
    """A placemark with its elements in the schema's order; the geometry comes last."""
    mark = child(folder, "Placemark")
    child(mark, "name", name)
    if said is not None:
        child(mark, "description", said)
    if time is not None:
        child(child(mark, "TimeStamp"), "when", time)
    child(mark, "styleUrl", f"#{style}")
    return mark


def _point(mark: Element, place: Position) -> None:
    child(child(mark, "Point"), "coordinates", f"{degrees(place.lon)},{degrees(place.lat)}")


def _polygon(parent: Element, ring: Ring) -> None:
    edge = child(child(child(parent, "Polygon"), "outerBoundaryIs"), "LinearRing")
    child(edge, "coordinates", " ".join(f"{degrees(lon)},{degrees(lat)}" for lon, lat in ring))
