"""Pictures with positions in a CSV (Im2GPS3k, YFCC4k, MR40k) or in their EXIF, and bare lists of positions."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from edgegeo.datasets.form import Form
from edgegeo.datasets.protocol import GPS
from edgegeo.datasets.reader import SUFFIXES, Reader, RowFault, place, seen, text_of
from edgegeo.datasets.sets import GpsSample, GpsSet, PositionSet
from edgegeo.errors import InputError
from edgegeo.geo import Position

IMAGE = ("img_file", "img_id", "image_id", "image", "img", "filename", "file_name", "path")
LAT = ("lat", "latitude")
LON = ("lon", "lng", "long", "longitude")
FOLDERS = ("images", "Images", "img")
Rows = list[tuple[str, dict[str, str]]]


def load_gps_csv(
    reader: Reader,
    *,
    csv: str | None = None,
    images: str | None = None,
    benchmark: str | None = None,
    swapped: bool | None = None,
) -> GpsSet:
    """Pictures and their positions from a CSV with a picture column, a latitude and a longitude.

    csv: the file, where a folder holds several. images: the folder of pictures. benchmark: only the rows of one
    benchmark. swapped: whether LAT and LON are exchanged in the header (by default told by their ranges, with a
    warning).
    """
    file = _file(reader, csv, IMAGE, LAT, LON)
    header, rows = reader.csv_rows(file)
    image, lat, lon = _columns(file, header, IMAGE, LAT, LON)
    kind = _column(header, ("benchmark",))
    if kind and benchmark:
        rows = [row for row in rows if row[1][kind].strip() == benchmark]
    lat, lon = _told_apart(reader, file, rows, lat, lon, swapped)
    folders = _folders(reader, images)
    samples: dict[tuple[str, str], GpsSample] = {}
    for where, row in rows:
        with reader.row(where):
            name, group = text_of(row[image], "picture name"), row[kind].strip() if kind else ""
            position = place(row[lat], row[lon])
            _check_twin(samples.get((group, name)), position, name)
            own = [reader.folder(f"images/{group}", group)] if group and not images else []
            path = reader.picture(name, *folders, *own)
            if position == Position(0.0, 0.0):
                reader.trap("position 0, 0: more often a missing one than the Gulf of Guinea", name)
            samples[group, name] = GpsSample(name, position, path, group)
    return GpsSet(tuple(samples.values()), (GPS,), reader.report())


def load_positions(reader: Reader, *, csv: str | None = None, swapped: bool | None = None) -> PositionSet:
    """Bare positions from a CSV with a latitude and a longitude; a position that comes twice is refused."""
    file = _file(reader, csv, LAT, LON)
    header, rows = reader.csv_rows(file)
    lat, lon = _columns(file, header, LAT, LON)
    lat, lon = _told_apart(reader, file, rows, lat, lon, swapped)
    found: dict[Position, None] = {}
    for where, row in rows:
        with reader.row(where):
            position = place(row[lat], row[lon])
            if position in found:
                raise RowFault("duplicate position", f"{position.lat}, {position.lon}")
            found[position] = None
    array = np.array([(p.lat, p.lon) for p in found], np.float64).reshape(-1, 2)
    return PositionSet(array, reader.report())


def load_photos(reader: Reader) -> GpsSet:
    """Every picture below a folder by the GPS position in its EXIF."""
    from edgegeo.runtime import Skipped
    from edgegeo.runtime.gallery.sources import photo_folder

    samples = []
    for found in photo_folder(reader.root):
        with reader.row(found.id):
            if isinstance(found, Skipped):
                reason, _, detail = found.reason.partition(" (")
                raise RowFault(reason.partition(";")[0], detail.rstrip(")"))
            path = reader.picture(found.id)
            if (found.lat, found.lon) == (0.0, 0.0):
                reader.trap("position 0, 0: more often a missing one than the Gulf of Guinea", found.id)
            samples.append(GpsSample(found.id, Position(found.lat, found.lon), path))
    return GpsSet(tuple(samples), (GPS,), reader.report())


def _check_twin(other: GpsSample | None, position: Position, name: str) -> None:
    if other is not None:
        same = other.position == position
        raise RowFault("duplicate row" if same else "picture listed twice with different positions", name)


def _told_apart(reader: Reader, file: Path, rows: Rows, lat: str, lon: str, swapped: bool | None) -> tuple[str, str]:
    """The latitude and longitude columns, exchanged if their ranges show that the header is wrong."""
    if swapped is not None:
        return (lon, lat) if swapped else (lat, lon)
    beyond = {name: sum(abs(_number(row[name])) > 90 for _, row in rows) for name in (lat, lon)}
    if beyond[lat] and not beyond[lon]:
        reader.warn(
            f"{file.name}: {beyond[lat]} values of {lat} are beyond 90 degrees and none of {lon}: the two headers are "
            "exchanged; read as such (swapped=False reads them as they stand)"
        )
        return lon, lat
    if rows and not any(beyond.values()):
        reader.trap("no value beyond 90 degrees: exchanged LAT and LON would not be noticed", file.name)
    return lat, lon


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _column(header: list[str], names: tuple[str, ...]) -> str | None:
    lower = {name.lower(): name for name in header}
    return next((lower[name] for name in names if name in lower), None)


def _columns(file: Path, header: list[str], *needed: tuple[str, ...]) -> list[str]:
    found = [_column(header, names) for names in needed]
    lacking = [names[0] for names, name in zip(needed, found, strict=True) if name is None]
    if lacking:
        raise InputError(f"{file} has no column {', '.join(lacking)} or like it; its columns are {', '.join(header)}")
    return [name for name in found if name is not None]


def _folders(reader: Reader, named: str | None) -> list[Path | None]:
    if named:
        folder = reader.folder(named)
        if folder is None:
            raise InputError(f"no folder {reader.root / named}; {reader.root} holds {seen(reader.root)}")
        return [folder]
    beside = sorted(p for p in reader.root.iterdir() if p.is_dir() and not p.name.startswith("."))
    return [reader.root, *(reader.folder(name) for name in FOLDERS), *beside]


def _file(reader: Reader, named: str | None, *needed: tuple[str, ...]) -> Path:
    if reader.file is not None:
        return reader.file
    if named is not None:
        return reader.root / named
    files = [file for file in _tables(reader.root) if all(_column(_header(file), names) for names in needed)]
    own = [file for file in files if reader.dataset in file.name.lower()]
    if len(own or files) == 1:
        return (own or files)[0]
    columns = ", ".join(names[0].upper() for names in needed)
    found = ", ".join(file.name for file in files) or f"none among {seen(reader.root)}"
    raise InputError(f"{reader.root} should hold one CSV with the columns {columns}, found {found}; name it with csv=")


def _tables(root: Path) -> list[Path]:
    if root.is_file():
        return [root] if root.suffix.lower() == ".csv" else []
    return [
        f for d in (root, root / "metadata", root / "meta") for f in sorted(d.glob("*")) if f.suffix.lower() == ".csv"
    ]


def _header(file: Path) -> list[str]:
    try:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            return [name.strip() for name in next(csv.reader(stream), [])]
    except OSError as error:
        raise InputError(f"{file} can't be read ({error.strerror or error}); check the path") from None
    except csv.Error:
        return []


def _with_columns(root: Path, *needed: tuple[str, ...]) -> Iterator[Path]:
    yield from (file for file in _tables(root) if all(_column(_header(file), names) for names in needed))


def _named(*words: str) -> Callable[[Path], str | None]:
    def recognise(root: Path) -> str | None:
        found = _with_columns(root, IMAGE, LAT, LON)
        return next((file.name for file in found if any(word in file.name.lower() for word in words)), None)

    return recognise


def _is_mr40k(root: Path) -> str | None:
    return next((file.name for file in _with_columns(root, IMAGE, LAT, LON, ("benchmark",))), None)


def _is_csv(root: Path) -> str | None:
    return next((file.name for file in _with_columns(root, IMAGE, LAT, LON)), None)


def _is_positions(root: Path) -> str | None:
    return next((f.name for f in _with_columns(root, LAT, LON) if _column(_header(f), IMAGE) is None), None)


def _is_photos(root: Path) -> str | None:
    if not root.is_dir():
        return None
    return next((p.name for p in sorted(root.iterdir()) if p.suffix.lower() in SUFFIXES), None)


def _form(name: str, title: str, layout: str, recognise: Callable[[Path], str | None]) -> Form:
    return Form(name, title, layout, ("test",), load_gps_csv, recognise)


FORMS = (
    _form("im2gps3k", "Im2GPS3k", "im2gps3k*.csv with IMG_ID, LAT, LON; images/", _named("im2gps")),
    _form("yfcc4k", "YFCC4k", "yfcc4k*.csv with IMG_ID or IMG_FILE, LAT, LON; images/", _named("yfcc")),
    _form("mr40k", "MR40k", "a CSV with image_id, lat, lon, benchmark; images/", _is_mr40k),
    _form("gps-csv", "any pictures with positions in a CSV", "a CSV with path, lat, lon", _is_csv),
    Form("gps-gallery", "bare positions", "a CSV with LAT, LON", ("all",), load_positions, _is_positions),
    Form("photos", "photos with EXIF GPS", "a folder of JPEG, PNG or WebP pictures", ("all",), load_photos, _is_photos),
)
