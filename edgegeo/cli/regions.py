"""Flags that hold a search to a place: --within, --box and --polygon."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from edgegeo.cli.flags import flag
from edgegeo.errors import InputError

if TYPE_CHECKING:
    from edgegeo.runtime.gallery.region import Region

WithinFlag = Annotated[
    str | None, flag("--within", verb="index", help="LAT,LON,KM: only tiles within so many km of a point.")
]
BoxFlag = Annotated[
    str | None,
    flag("--box", verb="index", help="SOUTH,WEST,NORTH,EAST: only tiles there; west above east crosses 180 degrees."),
]
PolygonFlag = Annotated[
    Path | None, flag("--polygon", verb="index", help="A GeoJSON file: only tiles inside its polygons.")
]


def region_of(within: str | None, box: str | None, polygon: Path | None) -> "Region | None":
    """The region that at most one of the flags names; InputError for more, or for what is none."""
    from edgegeo.runtime.gallery.region import Box, Circle, Polygons

    if (within is not None) + (box is not None) + (polygon is not None) > 1:
        raise InputError("name a place by one of --within, --box and --polygon")
    if within is not None:
        return Circle(*_numbers(within, "--within", "LAT,LON,KM"))
    if box is not None:
        return Box(*_numbers(box, "--box", "SOUTH,WEST,NORTH,EAST"))
    return Polygons.read(polygon) if polygon is not None else None


def _numbers(text: str, name: str, form: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) != form.count(",") + 1:
        raise InputError(f"{name} takes {form}, numbers with commas between them, not {text!r:.60}")
    return found
