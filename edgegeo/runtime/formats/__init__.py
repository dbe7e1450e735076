"""Answers as documents: text, JSON, GeoJSON, GPX 1.1, KML 2.2 and CSV, one or many photos in one document.

Every coordinate is WGS 84 in degrees. Documents for maps write it with 6 decimals (0.11 m); JSON keeps every digit of
the answer. `radius_km` is the radius that holds the place with 80 % (fusion.INSIDE).
"""

from collections.abc import Callable, Sequence

from edgegeo.errors import InputError
from edgegeo.runtime.formats.gpx import gpx
from edgegeo.runtime.formats.kml import kml
from edgegeo.runtime.formats.located import Failed, Located, checked
from edgegeo.runtime.formats.tables import csv_table, geojson, json_document, text_lines

Writer = Callable[[Sequence[Located], Sequence[Failed]], str]

WRITERS: dict[str, Writer] = {
    "text": text_lines,
    "json": json_document,
    "geojson": geojson,
    "gpx": gpx,
    "kml": kml,
    "csv": csv_table,
}
"""By the name that --format takes, which is the suffix of such a file too."""


def document(format: str, found: Sequence[Located], failed: Sequence[Failed] = ()) -> str:
    """All answers as one document that ends with a line break.

    Photos that failed are named in text, JSON and CSV; a map has no place for them. InputError for an unknown format
    and for coordinates or radii that are none.
    """
    if format not in WRITERS:
        raise InputError(f"unknown format '{format}'; there are {', '.join(WRITERS)}")
    for one in found:
        checked(one)
    return WRITERS[format](found, failed)


__all__ = ["WRITERS", "Failed", "Located", "document"]
