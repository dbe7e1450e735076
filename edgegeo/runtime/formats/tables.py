"""Answers as text for people, JSON for programs, GeoJSON for maps and CSV for tables."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from edgegeo.runtime.formats.circle import circle
from edgegeo.runtime.formats.located import Failed, Located, degrees

COLUMNS = (
    "photo", "lat", "lon", "radius_km", "confidence", "source", "time_utc", "tile", "tile_score", "text", "error",
)  # fmt: skip


def text_lines(found: Sequence[Located], failed: Sequence[Failed] = ()) -> str:
    """A line for each photo: its name, its place and what is known about it."""
    lines = [f"{one.name}: {one.described}" for one in found]
    lines += [f"{one.name}: {one.error}" for one in failed]
    return "".join("".join(c if c.isprintable() else "\ufffd" for c in line) + "\n" for line in lines)


def json_document(found: Sequence[Located], failed: Sequence[Failed] = ()) -> str:
    """{"answers": [{"photo", "time", ...Answer.to_dict}], "failed": [{"photo", "error"}]}."""
    answers = [{"photo": one.name, "time": one.stamp, **one.answer.to_dict()} for one in found]
    return _json({"answers": answers, "failed": [{"photo": one.name, "error": one.error} for one in failed]})


def geojson(found: Sequence[Located], failed: Sequence[Failed] = ()) -> str:
    """An RFC 7946 FeatureCollection: the features of Answer.to_geojson with their photo and its time.

    After each answer comes its circle, role "radius": a Polygon, or a MultiPolygon cut at the antimeridian.
    """
    features: list[dict[str, Any]] = []
    for one in found:
        for feature in one.answer.to_geojson()["features"]:
            lon, lat = feature["geometry"]["coordinates"]
            shape = {"type": "Point", "coordinates": [_round(lon), _round(lat)]}
            features.append(_feature(one, shape, feature["properties"]))
            if feature["properties"]["role"] == "answer":
                features += _area(one)
    return _json({"type": "FeatureCollection", "features": features})


def csv_table(found: Sequence[Located], failed: Sequence[Failed] = ()) -> str:
    """A header and a row for each photo (RFC 4180), located or not; empty cells for what there is not."""
    out = io.StringIO()
    rows = csv.DictWriter(out, COLUMNS)
    rows.writeheader()
    for one in found:
        place, best = one.answer.position, one.answer.hits[0] if one.answer.hits else None
        rows.writerow(
            {
                "photo": one.name,
                "lat": "" if place is None else degrees(place.lat),
                "lon": "" if place is None else degrees(place.lon),
                "time_utc": one.stamp,
                "tile": "" if best is None else best.id,
                "tile_score": "" if best is None else f"{best.score:.6g}",
                "text": one.answer.text or "",
                **{name: f"{v:.6g}" if isinstance(v, float) else v for name, v in one.facts.items()},
            }
        )
    for bad in failed:
        rows.writerow({"photo": bad.name, "error": bad.error})
    return out.getvalue()


def _feature(one: Located, shape: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Feature", "geometry": shape, "properties": {"photo": one.name, "time": one.stamp, **facts}}


def _area(one: Located) -> list[dict[str, Any]]:
    """The circle of an answer as a feature; none without a radius that a map can show."""
    place, radius = one.answer.position, one.answer.radius_km
    rings = [] if place is None or radius is None else circle(place, radius)
    if not rings:
        return []
    shape = [[[_round(lon), _round(lat)] for lon, lat in ring] for ring in rings]
    area: dict[str, Any] = {"type": "Polygon", "coordinates": shape}
    if len(shape) > 1:
        area = {"type": "MultiPolygon", "coordinates": [[ring] for ring in shape]}
    return [_feature(one, area, {"role": "radius", "radius_km": radius})]


def _round(value: float) -> float:
    return round(value, 6) + 0.0


def _json(document: dict[str, Any]) -> str:
    # ASCII only: a file name in no encoding (lone surrogates) could not be written otherwise.
    return json.dumps(document, indent=1, allow_nan=False) + "\n"
