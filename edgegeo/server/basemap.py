"""Vector basemaps: coastlines and borders as compact JSON, and the demo planet's, traced from its own tables.

A basemap is `{"name", "scale", "land", "borders", "labels"}`. Lines are flat lists of whole numbers, longitude first,
in 1 / scale degrees; the first pair is a point, every later one the step from the point before. Longitudes run on past
180 rather than jump, so that a ring is one closed curve; one that goes around the planet is closed over its pole.
`land` are rings, filled by the even-odd rule; `borders` are open lines on land; `labels` are [name, lon, lat, room in
degrees], the roomiest first.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.planet import Planet
from edgegeo.planet.world import WANDER, World

SCALE = 100
"""Whole steps in a degree: about a kilometre."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Which sides (0 north, 1 east, 2 south, 3 west) a contour enters and leaves a cell by, with the higher ground on its
# right, for each set of corners above the level: bits 1, 2, 4, 8 are north-west, north-east, south-east, south-west.
Turns = dict[int, tuple[tuple[int, int], ...]]
_TURNS: Turns = {
    1: ((0, 3),), 2: ((1, 0),), 3: ((1, 3),), 4: ((2, 1),), 6: ((2, 0),), 7: ((2, 3),),
    8: ((3, 2),), 9: ((0, 2),), 11: ((1, 2),), 12: ((3, 1),), 13: ((0, 1),), 14: ((3, 0),),
}  # fmt: skip
_APART: Turns = {5: ((0, 3), (2, 1)), 10: ((1, 0), (3, 2))}
_JOINED: Turns = {5: ((0, 1), (2, 3)), 10: ((3, 0), (1, 2))}


def planet_basemap(planet: Planet) -> str:
    """The basemap of a planet as JSON: coasts where the elevation is 0, borders of the regions, and their names."""
    world = planet.world
    table, region = world.grid()
    height = table[..., 0]
    rings = contours(height)
    borders = region_borders(_wandered(table), world.centres, region, height)
    return pack(f"demo planet {planet.seed}", rings, borders, _labels(world, region, height > 0))


def pack(name: str, land: Iterable[Floats], borders: Iterable[Floats], labels: Sequence[Sequence[Any]]) -> str:
    """JSON of rings and lines, each (N, 2) longitude and latitude in degrees, without those that shrink to a point."""
    packed = {
        "name": name,
        "scale": SCALE,
        "land": [steps for ring in land if len(steps := _steps(ring)) > 6],
        "borders": [steps for line in borders if len(steps := _steps(line)) > 2],
        "labels": labels,
    }
    return json.dumps(packed, ensure_ascii=False, separators=(",", ":"))


def unwrapped(line: Floats) -> Floats:
    """A line (N, 2) from within [-180, 180) on, with longitudes that run on past 180 instead of jumping."""
    lon = np.rad2deg(np.unwrap(np.deg2rad(line[:, 0])))
    lon -= 360.0 * np.floor((lon[0] + 180.0) / 360.0)
    return np.stack([lon, line[:, 1]], axis=1)


def closed_over_pole(ring: Floats, north: bool) -> Floats:
    """A ring (N, 2) that goes around the planet, closed along a pole; any other ring as it is."""
    if abs(ring[-1, 0] - ring[0, 0]) < 180.0:
        return ring
    pole = 90.0 if north else -90.0
    return np.concatenate([ring, [[ring[-1, 0], pole], [ring[0, 0], pole]]])


def contours(height: Floats) -> list[Floats]:
    """Rings (N, 2) of longitude and latitude where a table over the whole planet crosses 0, land on their right.

    `height` is (rows, columns): rows from pole to pole, columns around from 180 W. Marching squares with linear
    interpolation, which is where the bilinear surface crosses the table's lines.
    """
    following = _turns(height)
    places = _crossings(height)
    rings = []
    while following:
        start, at = following.popitem()
        walk = [start]
        while at != start:
            walk.append(at)
            at = following.pop(at)
        ring = unwrapped(places[[*walk, start]])
        # Eastward with the land on the right: the land is in the south.
        rings.append(closed_over_pole(ring, north=bool(ring[-1, 0] < ring[0, 0])))
    return rings


def _turns(height: Floats) -> dict[int, int]:
    """Crossed side -> the side that the contour crosses next. Side 2n runs east from table point n, 2n + 1 south."""
    rows, columns = height.shape
    above = height > 0.0
    east = np.roll(above, -1, axis=1)
    case = above[:-1] * 1 + east[:-1] * 2 + east[1:] * 4 + above[1:] * 8
    middle = (height[:-1] + np.roll(height, -1, axis=1)[:-1] + height[1:] + np.roll(height, -1, axis=1)[1:]) > 0.0
    point = np.arange(rows * columns).reshape(rows, columns)
    right = np.roll(point, -1, axis=1)
    sides = np.stack([2 * point[:-1], 2 * right[:-1] + 1, 2 * point[1:], 2 * point[:-1] + 1])
    out: dict[int, int] = {}
    tables: list[tuple[Turns, NDArray[np.bool_]]] = [
        (_TURNS, np.ones_like(middle)),
        (_APART, ~middle),
        (_JOINED, middle),
    ]
    for turns, where in tables:
        for number, pairs in turns.items():
            cells = (case == number) & where
            for enter, leave in pairs:
                out.update(zip(sides[enter][cells].tolist(), sides[leave][cells].tolist(), strict=True))
    return out


def _crossings(height: Floats) -> Floats:
    """(2 * points, 2): where each side crosses 0, as longitude and latitude; means nothing for sides that don't."""
    rows, columns = height.shape
    lat, lon = _axes(rows, columns)
    out = np.zeros((rows * columns, 2, 2))
    for side, next_one in enumerate((np.roll(height, -1, axis=1), np.roll(height, -1, axis=0))):
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where((height > 0) != (next_one > 0), height / (height - next_one), 0.0)
        across = np.broadcast_to(lon + (share if side == 0 else 0.0) * 360.0 / columns, height.shape)
        down = np.broadcast_to(lat - (share if side == 1 else 0.0) * 180.0 / (rows - 1), height.shape)
        out[:, side] = np.stack([across.ravel(), down.ravel()], axis=1)
    return out.reshape(-1, 2)


def region_borders(points: Floats, centres: Floats, region: Ints, height: Floats) -> list[Floats]:
    """Lines (N, 2) of longitude and latitude between the regions on land.

    `points` are the table's warped unit vectors (rows, columns, 3); each belongs to the nearest of `centres`, so that a
    border crosses a table line where two centres are equally near.
    """
    places, heights = _ties(points, centres, region, height)
    rows, columns = region.shape
    point = np.arange(rows * columns).reshape(rows, columns)
    right = np.roll(point, -1, axis=1)
    sides = np.stack([2 * point[:-1], 2 * right[:-1] + 1, 2 * point[1:], 2 * point[:-1] + 1]).reshape(4, -1)
    crossed = np.isfinite(places[sides, 0])
    pairs = [sides[:, crossed.sum(axis=0) == 2].T[crossed[:, crossed.sum(axis=0) == 2].T].reshape(-1, 2)]
    meeting = np.flatnonzero(crossed.sum(axis=0) > 2)
    # Where three or more regions meet within a cell, their borders meet in its middle.
    lat, lon = _axes(rows, columns)
    i, j = np.divmod(meeting, columns)
    middle = np.stack([lon[0, j] + 180.0 / columns, lat[i, 0] - 90.0 / (rows - 1)], axis=1)
    nodes = np.concatenate([places, middle])
    heights = np.concatenate([heights, height[i, j]])
    for side in range(4):
        there = crossed[side, meeting]
        pairs.append(np.stack([sides[side, meeting][there], len(places) + np.flatnonzero(there)], axis=1))
    return _chained(np.concatenate(pairs), nodes, heights)


def _ties(points: Floats, centres: Floats, region: Ints, height: Floats) -> tuple[Floats, Floats]:
    """(places (2 * points, 2), heights): where each table line crosses a border; NaN where it crosses none."""
    rows, columns = region.shape
    lat, lon = _axes(rows, columns)
    places = np.full((rows * columns, 2, 2), np.nan)
    heights = np.full((rows * columns, 2), np.nan)
    for side, axis in enumerate((1, 0)):
        other = np.roll(region, -1, axis=axis)
        crossed = region != other
        crossed[-1] &= axis == 1
        i, j = np.nonzero(crossed)
        between = centres[region[i, j]] - centres[other[i, j]]
        here = (points[i, j] * between).sum(axis=1)
        there = (np.roll(points, -1, axis=axis)[i, j] * between).sum(axis=1)
        share = here / np.maximum(here - there, 1e-12)
        n = i * columns + j
        places[n, side, 0] = lon[0, j] + (share if side == 0 else 0.0) * 360.0 / columns
        places[n, side, 1] = lat[i, 0] - (share if side == 1 else 0.0) * 180.0 / (rows - 1)
        heights[n, side] = height[i, j] + share * (np.roll(height, -1, axis=axis)[i, j] - height[i, j])
    return places.reshape(-1, 2), heights.ravel()


def _chained(pairs: Ints, nodes: Floats, heights: Floats) -> list[Floats]:
    """Lines from segments between numbered nodes, on land only: cut where the height crosses 0."""
    pairs = pairs[(heights[pairs] > 0).any(axis=1)]
    links: dict[int, list[int]] = {}
    for a, b in pairs.tolist():
        links.setdefault(a, []).append(b)
        links.setdefault(b, []).append(a)
    # From ends and meetings first, so that every line is walked whole; what is left then are closed curves.
    starts = sorted(links, key=lambda node: len(links[node]) == 2)
    lines = []
    for start in starts:
        while links[start]:
            walk = [start]
            while links[walk[-1]]:
                following = links[walk[-1]].pop()
                links[following].remove(walk[-1])
                walk.append(following)
                if len(links[following]) != 1:
                    break
            lines.append(unwrapped(_ashore(nodes[walk], heights[walk])))
    return lines


def _ashore(line: Floats, height: Floats) -> Floats:
    """The line with an end that lies in the sea drawn back to the shore."""
    out = line.copy()
    for end, inner in ((0, 1), (-1, -2)):
        if height[end] <= 0 < height[inner]:
            share = height[inner] / (height[inner] - height[end])
            east, north = line[end] - line[inner]
            out[end] = line[inner] + share * np.array([(east + 180.0) % 360.0 - 180.0, north])
    return out


def _wandered(table: Floats) -> Floats:
    """Unit vectors of the table's points, moved by the warp that makes borders wander: as in planet/world.py."""
    rows, columns = table.shape[:2]
    lat, lon = (np.deg2rad(axis) for axis in _axes(rows, columns))
    unit = np.stack(np.broadcast_arrays(np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)), axis=-1)
    return np.asarray(unit + WANDER * (table[..., 7:10] - 0.5))


def _labels(world: World, region: Ints, land: NDArray[np.bool_]) -> list[list[Any]]:
    """Each region's name at the middle of its land, with the room there; the largest first."""
    rows, columns = region.shape
    lat, lon = _axes(rows, columns)
    weight = np.where(land, np.cos(np.deg2rad(lat)), 0.0)
    out: list[list[Any]] = []
    for one in world.regions:
        share = weight * (region == one.index)
        if share.sum() == 0.0:
            continue
        east, north = (share * np.sin(np.deg2rad(lon))).sum(), (share * lat).sum() / share.sum()
        middle = np.rad2deg(np.arctan2(east, (share * np.cos(np.deg2rad(lon))).sum()))
        room = np.sqrt(share.sum()) * 360.0 / columns / max(np.cos(np.deg2rad(north)), 0.1)
        out.append([one.name, round(float(middle), 1), round(float(north), 1), round(float(room), 1)])
    return sorted(out, key=lambda label: -float(label[3]))


def _axes(rows: int, columns: int) -> tuple[Floats, Floats]:
    """Latitudes (rows, 1) and longitudes (1, columns) of a table over the whole planet."""
    lat, lon = np.linspace(90.0, -90.0, rows), np.linspace(-180.0, 180.0, columns, endpoint=False)
    return np.asarray(lat[:, None], np.float64), np.asarray(lon[None], np.float64)


def _steps(line: Floats) -> list[int]:
    whole = np.round(line * SCALE).astype(np.int64)
    kept = np.concatenate([[True], (np.diff(whole, axis=0) != 0).any(axis=1)])
    return [int(v) for v in np.diff(whole[kept], axis=0, prepend=0).ravel()]
