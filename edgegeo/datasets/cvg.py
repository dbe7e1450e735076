"""CVG-Text (Ye et al., ICCV 2025): descriptions of street scenes, and the satellite picture or map of the place."""

import re
from pathlib import Path, PurePosixPath

from edgegeo.datasets.form import Form
from edgegeo.datasets.protocol import CVG_FULL, CVG_ORACLE
from edgegeo.datasets.reader import Reader, RowFault, place, seen, text_of
from edgegeo.datasets.sets import Item, RetrievalSet
from edgegeo.errors import InputError
from edgegeo.geo import Position

CITIES = ("NewYork", "Brisbane", "Tokyo")
SUFFIXES = ("", "-photos", "-mixed")
VERSIONS = tuple(city + suffix for city in CITIES for suffix in SUFFIXES)
VIEWS = {"satellite": "satellite", "osm": "OSM", "ground": "ground", "photo": "photo"}
_START = re.compile(r"([-+]?\d*\.?\d+),([-+]?\d*\.?\d+)", re.ASCII)


def load_cvg(
    reader: Reader, *, version: str | None = None, view: str = "satellite", scenes: str = "all"
) -> RetrievalSet:
    """Captions as queries, one picture of each place as gallery.

    version: a city with "", "-photos" or "-mixed" (by default the only one there). view: satellite, osm, ground or
    photo. scenes: "all", "panorama" or "single" (the queries; the gallery stays whole).
    """
    if view not in VIEWS or scenes not in ("all", "panorama", "single"):
        raise InputError(f"view is one of {', '.join(VIEWS)} and scenes all, panorama or single; got {view}, {scenes}")
    queries: list[Item] = []
    gallery: dict[str, Item] = {}
    for part in _parts(reader, version):
        file = _file(reader, part)
        entries = reader.json(file)
        if not isinstance(entries, dict):
            raise InputError(f"{file} is no dict of picture name to caption; check the file")
        folders = _folders(reader, part, view)
        for name, caption in entries.items():
            with reader.row(f"{part}/{file.name}[{name}]"):
                text = text_of(caption)
                position = position_in(name)
                base = PurePosixPath(name).name
                if base in gallery:
                    raise RowFault("duplicate picture name", base)
                path = reader.picture(name, *folders)
                gallery[base] = Item(base, base, base, image=path, position=position)
                if scenes == "all" or is_panorama(name) == (scenes == "panorama"):
                    queries.append(Item(f"{base}#text", base, base, text=text, position=position))
    return RetrievalSet(tuple(queries), tuple(gallery.values()), (CVG_ORACLE, CVG_FULL), reader.report())


def position_in(name: str) -> Position:
    """The position a file name starts with, `lat,lon_...`; RowFault for one that doesn't."""
    match = _START.match(PurePosixPath(name).name)
    if match is None:
        raise RowFault("file name does not start with lat,lon", name)
    return place(match.group(1), match.group(2))


def is_panorama(name: str) -> bool:
    """Panoramas have more than two parts between underscores. Of the file name only: folders may hold underscores."""
    return len(PurePosixPath(name).name.split("_")) > 2


def _parts(reader: Reader, version: str | None) -> list[str]:
    there = [name for name in VERSIONS if _annotations(reader, name).is_dir()]
    if version is None:
        if len(there) != 1:
            raise InputError(
                f"{reader.root} holds {', '.join(there) or 'no version of CVG-Text (' + seen(reader.root) + ')'}; "
                f"name one with version=, for instance {VERSIONS[0]}"
            )
        return there
    if version not in VERSIONS:
        raise InputError(f"no version {version!r} of CVG-Text; it has {', '.join(VERSIONS)}")
    if version.endswith("-mixed") and version not in there:
        # The official evaluation puts a mixed set together from the two others.
        city = version.removesuffix("-mixed")
        return [city, f"{city}-photos"]
    return [version]


def _annotations(reader: Reader, part: str) -> Path:
    below = reader.root / "CVG-text" / part
    return below if below.is_dir() else reader.root / part


def _file(reader: Reader, part: str) -> Path:
    file = _annotations(reader, part) / f"{reader.split}.json"
    if not file.is_file():
        raise InputError(f"no {file}; CVG-Text keeps its captions in VERSION/{reader.split}.json")
    return file


def _folders(reader: Reader, part: str, view: str) -> list[Path]:
    city = part.removesuffix("-photos").removesuffix("-mixed")
    names = dict.fromkeys(f"{prefix}{v}-{VIEWS[view]}" for prefix in ("", "images/") for v in (part, city))
    folders = [reader.root / name for name in names if (reader.root / name).is_dir()]
    if not folders:
        raise InputError(f"{reader.root} has no folder {next(iter(names))}; it holds {seen(reader.root)}")
    return folders


def _recognise(root: Path) -> str | None:
    found = [f"{v}/" for v in VERSIONS if any((root / d / v / "test.json").is_file() for d in (".", "CVG-text"))]
    return ", ".join(found) or None


FORMS = (
    Form(
        "cvg-text",
        "CVG-Text",
        "{NewYork,Brisbane,Tokyo}*/{train,test}.json ({picture: caption}); VERSION-{satellite,OSM,ground}/",
        ("train", "test"),
        load_cvg,
        _recognise,
    ),
)
