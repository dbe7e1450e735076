"""University-1652 (Zheng et al., ACM MM 2020): buildings seen by drone, from the street and from a satellite."""

from collections.abc import Iterator
from pathlib import Path

from edgegeo.datasets.form import Form
from edgegeo.datasets.protocol import UNIVERSITY
from edgegeo.datasets.reader import SUFFIXES, Reader, RowFault, seen
from edgegeo.datasets.sets import Item, RetrievalSet
from edgegeo.errors import InputError

VIEWS = {"train": ("drone", "street", "satellite", "google"), "test": ("drone", "street", "satellite")}


def load_university(reader: Reader, *, query: str = "drone", gallery: str = "satellite") -> RetrievalSet:
    """Pictures of one view as queries, of another as gallery; a hit is any picture of the same building folder.

    A query of a building the gallery lacks is refused, as the official evaluation leaves it out.
    """
    views = VIEWS[reader.split]
    if query not in views or gallery not in views or query == gallery:
        raise InputError(f"query and gallery are two of {', '.join(views)} for {reader.split}; got {query}, {gallery}")
    prefixes = ("", "") if reader.split == "train" else ("query_", "gallery_")
    kept = _items(reader, f"{reader.split}/{prefixes[1]}{gallery}", None)
    known = {item.group for item in kept}
    queries = _items(reader, f"{reader.split}/{prefixes[0]}{query}", known)
    return RetrievalSet(tuple(queries), tuple(kept), (UNIVERSITY,), reader.report())


def _items(reader: Reader, name: str, known: set[str] | None) -> list[Item]:
    folder = reader.root / name
    if not folder.is_dir():
        raise InputError(
            f"no folder {folder}; University-1652 has {name}/NNNN/; {reader.root} holds {seen(reader.root)}"
        )
    items = []
    for building, file in _files(reader, folder):
        relative = f"{name}/{building}/{file.name}" if building else f"{name}/{file.name}"
        with reader.row(relative):
            if not building:
                raise RowFault("lies outside the building folders", relative)
            if file.suffix.lower() not in SUFFIXES:
                raise RowFault("not a picture file", file.name)
            path = reader.picture(relative)
            if known is not None and building not in known:
                raise RowFault("building is not in the gallery", building)
            items.append(Item(relative, building, building, image=path))
    return items


def _files(reader: Reader, folder: Path) -> Iterator[tuple[str, Path]]:
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            yield "", entry
            continue
        files = sorted(file for file in entry.iterdir() if file.is_file() and not file.name.startswith("."))
        if not files:
            reader.trap("empty building folder", f"{folder.name}/{entry.name}")
        yield from ((entry.name, file) for file in files)


def _recognise(root: Path) -> str | None:
    names = ("test/query_drone", "test/gallery_satellite", "test/query_satellite", "train/drone", "train/satellite")
    found = [name for name in names if (root / name).is_dir()]
    return ", ".join(found) if len(found) > 1 else None


FORMS = (
    Form(
        "university1652",
        "University-1652",
        "train/{drone,street,satellite,google}/NNNN/, test/{query_,gallery_}{drone,street,satellite}/NNNN/",
        ("train", "test"),
        load_university,
        _recognise,
    ),
)
