"""The pictures of a data set as tiles for a gallery, where it knows their places."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from edgegeo.datasets.registry import open_dataset
from edgegeo.datasets.report import Report
from edgegeo.datasets.sets import Drawn, GpsSet, Loaded, Picture, PositionSet, RetrievalSet
from edgegeo.errors import InputError
from edgegeo.geo import Position
from edgegeo.runtime.gallery.rows import Drawn as DrawnTile
from edgegeo.runtime.gallery.rows import Origin, Row, Skipped, Tiles


def dataset_tiles(name: str, root: str | Path | None = None, split: str | None = None, **options: Any) -> Tiles:
    """The gallery of a retrieval set, or the pictures of a set of positions; ids are the data set's own.

    Rows that the data set's report refuses are Skipped, one for each reason with its count. InputError as from
    `open_dataset`, and for a set without pictures or without positions.
    """
    loaded = open_dataset(name, root, split, **options)
    report = loaded.report
    if not isinstance(loaded, (RetrievalSet, GpsSet)):
        what = "bare positions" if isinstance(loaded, PositionSet) else "conversations to train on"
        raise InputError(f"{report.dataset} holds {what}, no tiles for a gallery; edgegeo data list names others")
    total = sum(1 for _ in _pictures(loaded))
    if not any(place for _, place, _ in _pictures(loaded)):
        raise InputError(f"{report.dataset} knows no positions, so its pictures can't be found on a map; take another")
    chosen = [report.split, *(f"{key}={value}" for key, value in sorted(options.items()))]
    place = str(Path(root).absolute()) if root is not None else ""
    origin = Origin("data", place, detail=", ".join([report.dataset, *chosen]))
    return Tiles(origin, partial(_rows, loaded), total + len(report.refused), _remark(report))


def _rows(loaded: RetrievalSet | GpsSet) -> Iterator[Row | Skipped]:
    for id, place, picture in _pictures(loaded):
        if place is None:
            yield Skipped(id, "has no position in the data set")
        elif picture is None:
            yield Skipped(id, "is a text without a picture")
        elif isinstance(picture, Drawn):
            mark = f"planet {picture.seed} {picture.view} {picture.size} {picture.lat!r} {picture.lon!r}"
            yield Row(id, place.lat, place.lon, DrawnTile(mark, picture.open))
        else:
            yield Row(id, place.lat, place.lon, picture)
    for refusal in loaded.report.refused:
        rows = f"{refusal.count:,} rows: {refusal.reason} (first {refusal.examples[0]})"
        yield Skipped(loaded.report.dataset, rows)


def _pictures(loaded: Loaded) -> Iterator[tuple[str, Position | None, Picture | None]]:
    if isinstance(loaded, RetrievalSet):
        yield from ((item.id, item.position, item.image) for item in loaded.gallery)
    elif isinstance(loaded, GpsSet):
        for one in loaded.samples:
            yield (f"{one.benchmark}/{one.id}" if one.benchmark else one.id), one.position, one.image


def _remark(report: Report) -> str:
    return "; ".join(report.warnings)
