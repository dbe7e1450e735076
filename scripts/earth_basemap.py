"""Makes the page's basemap of the Earth (edgegeo/server/page/earth.json) from the npm package world-atlas.

    npm pack world-atlas@2.0.2
    python scripts/earth_basemap.py world-atlas-2.0.2.tgz

world-atlas holds Natural Earth 4.1 (public domain) as TopoJSON. Taken: its 1:50m coastlines and country borders and the
countries' names, simplified by Douglas and Peucker and without islets: small enough for a phone on a slow link.
"""

import argparse
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.server.basemap import closed_over_pole, pack, unwrapped

PAGE = Path(__file__).parents[1] / "edgegeo" / "server" / "page"
NAME = "Natural Earth 4.1, 1:50m"
TOLERANCE = 0.025
"""Degrees that a simplified line may stray, about 3 km."""
ISLET = 0.12
"""Degrees: a ring whose box is smaller both ways is left out, unless it is all the land a country has."""
LIMIT = 250_000

Floats = NDArray[np.float64]


def main() -> None:
    """Convert one tarball."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tarball", type=Path, help="world-atlas-2.0.2.tgz, as `npm pack` leaves it")
    text = convert(json.loads(_member(parser.parse_args().tarball, "package/countries-50m.json")))
    if len(text.encode()) > LIMIT:
        raise SystemExit(f"{len(text.encode()):,} bytes are more than {LIMIT:,}; raise TOLERANCE or ISLET")
    (PAGE / "earth.json").write_text(text, encoding="utf-8")
    print(f"earth.json: {len(text.encode()):,} bytes")


def convert(topology: dict[str, Any]) -> str:
    """A TopoJSON topology with `countries` and `land` as a basemap."""
    arcs = _arcs(topology)
    countries = [one for one in topology["objects"]["countries"]["geometries"] if one.get("arcs")]
    # Whole polygons are known only by their arcs, and an arc of one country alone is coast.
    owners = np.zeros(len(arcs), int)
    for country in countries:
        owners[[*{_index(arc) for ring in _rings(country) for arc in ring}]] += 1
    borders = [simplified(unwrapped(arcs[k])) for k in np.flatnonzero(owners > 1)]
    land, labels = [], []
    for country in countries:
        largest = max((_joined(arcs, ring) for ring in _rings(country)), key=_size)
        labels.append(_label(country["properties"]["name"], largest))
    alone = {label[0]: label for label in labels if label[3] < ISLET}
    for shape in topology["objects"]["land"]["geometries"]:
        for ring in _rings(shape):
            outline = _joined(arcs, ring)
            kept = np.ptp(outline, axis=0).max() >= ISLET or any(_near(outline, one) for one in alone.values())
            if kept:
                land.append(closed_over_pole(simplified(outline, closed=True), north=False))
    labels.sort(key=lambda label: -label[3])
    return pack(NAME, land, borders, labels)


def simplified(line: Floats, closed: bool = False) -> Floats:
    """Douglas and Peucker, in degrees as they look on a map at that latitude."""
    keep = np.zeros(len(line), bool)
    keep[[0, -1]] = True
    spans = [(0, len(line) - 1)]
    if closed and len(line) > 3:
        # A closed ring has no two ends; its farthest point makes the second one.
        far = int(np.hypot(*(line - line[0]).T).argmax())
        keep[far] = True
        spans = [(0, far), (far, len(line) - 1)]
    flat = line * np.stack([np.cos(np.deg2rad(line[:, 1])), np.ones(len(line))], axis=1)
    while spans:
        a, b = spans.pop()
        if b - a < 2:
            continue
        way, steps = flat[b] - flat[a], flat[a + 1 : b] - flat[a]
        along = np.clip(steps @ way / max(float(way @ way), 1e-12), 0.0, 1.0)
        away = np.hypot(*(steps - along[:, None] * way).T)
        if away.max() > TOLERANCE:
            middle = a + 1 + int(away.argmax())
            keep[middle] = True
            spans += [(a, middle), (middle, b)]
    return np.asarray(line[keep])


def _member(tarball: Path, name: str) -> bytes:
    with tarfile.open(tarball) as archive:
        file = archive.extractfile(name)
        assert file is not None
        return file.read()


def _arcs(topology: dict[str, Any]) -> list[Floats]:
    transform = topology["transform"]
    return [
        np.cumsum(np.asarray(arc, float), axis=0) * transform["scale"] + transform["translate"]
        for arc in topology["arcs"]
    ]


def _rings(geometry: dict[str, Any]) -> list[list[int]]:
    polygons = [geometry["arcs"]] if geometry["type"] == "Polygon" else geometry["arcs"]
    return [ring for polygon in polygons for ring in polygon]


def _index(arc: int) -> int:
    return ~arc if arc < 0 else arc


def _joined(arcs: list[Floats], ring: list[int]) -> Floats:
    pieces = [arcs[~arc][::-1] if arc < 0 else arcs[arc] for arc in ring]
    return unwrapped(np.concatenate([pieces[0], *(piece[1:] for piece in pieces[1:])]))


def _size(ring: Floats) -> float:
    x, y = ring[:, 0] * np.cos(np.deg2rad(ring[:, 1].mean())), ring[:, 1]
    return abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1])) / 2


def _near(ring: Floats, label: list[Any]) -> bool:
    return bool(np.abs(ring - [label[1], label[2]]).max() < 2 * ISLET)


def _label(name: str, ring: Floats) -> list[Any]:
    """[name, lon, lat, room]: the point of a 40 x 40 grid within the ring that is farthest from its outline."""
    low, high = ring.min(axis=0), ring.max(axis=0)
    ring = closed_over_pole(ring, north=False)
    grid = np.stack(np.meshgrid(*(np.linspace(low[k], high[k], 42)[1:-1] for k in (0, 1))), axis=-1).reshape(-1, 2)
    (x0, y0), (x1, y1) = ring[:-1].T, ring[1:].T
    crossed = (y0 > grid[:, 1:]) != (y1 > grid[:, 1:])
    with np.errstate(divide="ignore", invalid="ignore"):
        at = x0 + (grid[:, 1:] - y0) / (y1 - y0) * (x1 - x0)
    inside = (crossed & (grid[:, :1] < at)).sum(axis=1) % 2 == 1
    wide = np.cos(np.deg2rad(grid[:, 1]))[:, None]
    room = np.hypot((grid[:, :1] - ring[:, 0]) * wide, grid[:, 1:] - ring[:, 1]).min(axis=1) * inside
    best = int(room.argmax())
    lon = (grid[best, 0] + 180.0) % 360.0 - 180.0
    return [name, round(float(lon), 1), round(float(grid[best, 1]), 1), round(2 * float(room[best]), 1)]


if __name__ == "__main__":
    main()
