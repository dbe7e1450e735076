"""Tiles from whatever a person has: the kind of a source is told by its name and content, or by name."""

from dataclasses import dataclass
from pathlib import Path

from edgegeo.errors import InputError
from edgegeo.runtime.gallery.rows import Tiles
from edgegeo.runtime.gallery.sources import SUFFIXES as PHOTOS
from edgegeo.runtime.gallery.sources import csv_list, photo_folder
from edgegeo.runtime.tiles import geotiff
from edgegeo.runtime.tiles.cutting import Cutting
from edgegeo.runtime.tiles.mbtiles import mbtiles
from edgegeo.runtime.tiles.xyz import is_tiled, xyz_folder

KINDS = ("photos", "csv", "xyz", "mbtiles", "geotiff")


@dataclass(frozen=True)
class TileChoice:
    """Which tiles of a source are taken."""

    zoom: int | None = None
    """Of a pyramid, by default its deepest complete one; or how a raster is cut."""
    tms: bool | None = None
    """Rows of a pyramid are counted from the south (True), from the north (False), or as its form has them."""
    ground: float | None = None
    """Metres along the side of a raster's tiles."""
    overlap: float | None = None
    """Share of their side by which a raster's tiles overlap."""


def open_source(place: str | Path, kind: str | None = None, choice: TileChoice | None = None) -> Tiles:
    """The tiles of a folder of photos, a CSV, a tile folder, an MBTiles file or rasters; `kind` one of KINDS.

    InputError for a source of no known kind, or a choice that it does not have.
    """
    place, choice = Path(place), choice or TileChoice()
    kind = kind or kind_of(place)
    if kind not in KINDS:
        raise InputError(f"a source is one of {', '.join(KINDS)}, not {kind!r:.40}")
    _check(kind, choice)
    if kind == "photos":
        return photo_folder(place)
    if kind == "csv":
        return csv_list(place)
    if kind == "xyz":
        return xyz_folder(place, choice.zoom, choice.tms)
    if kind == "mbtiles":
        return mbtiles(place, choice.zoom, choice.tms)
    if choice.ground is None and choice.zoom is None:
        raise InputError(f"say how large the tiles of {place} are: --ground METRES along a side, or --zoom Z")
    return geotiff.geotiff(place, Cutting(choice.ground, choice.zoom, choice.overlap))


def kind_of(place: Path) -> str:
    """Which of KINDS a file or folder is; InputError for none or more than one."""
    suffix = place.suffix.lower()
    known = {".csv": "csv", ".mbtiles": "mbtiles", **dict.fromkeys(geotiff.SUFFIXES, "geotiff")}
    if not place.exists():
        raise InputError(f"nothing at {place}; check the path")
    if place.is_file():
        if suffix in known:
            return known[suffix]
        raise InputError(
            f"{place} is no source of tiles by its name (.csv, .mbtiles, {', '.join(geotiff.SUFFIXES)}); if it is one, "
            f"say which with --source {'|'.join(KINDS)}"
        )
    if is_tiled(place):
        return "xyz"
    held = {file.suffix.lower() for file in place.rglob("*") if file.is_file()}
    rasters, photos = bool(held & set(geotiff.SUFFIXES)), bool(held & set(PHOTOS))
    if rasters and photos:
        raise InputError(f"{place} holds rasters and photos; say which to take with --source geotiff or photos")
    if not rasters and not photos:
        raise InputError(f"{place} holds no pictures: no photos, no tiles z/x/y.png, no rasters")
    return "geotiff" if rasters else "photos"


def _check(kind: str, choice: TileChoice) -> None:
    """InputError for a choice that this kind of source does not have."""
    takes = {"xyz": ("zoom", "tms"), "mbtiles": ("zoom", "tms"), "geotiff": ("zoom", "ground", "overlap")}.get(kind, ())
    for name, value in vars(choice).items():
        if value is not None and name not in takes:
            flag = {True: "tms", False: "xyz"}[choice.tms] if name == "tms" and choice.tms is not None else name
            raise InputError(f"--{flag} does not go with a source of {kind}")
