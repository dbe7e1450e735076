"""The globe: elevation, climate, smooth colour fields, regions and cultures, tabulated once per seed."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.planet.noise import Dice, Floats, fractal_noise, mix64
from edgegeo.planet.palette import (
    BIOMES,
    CULTURES,
    FLAGS,
    LINE_COLOURS,
    LINES,
    PAINTS,
    POSTS,
    ROADS,
    WALLS,
)

LAND_SHARE = 0.36
GRID_DEGREES = 0.5
WANDER = 0.14  # how far region borders stray from straight, in Earth radii
_ROWS, _COLS = 361, 720
CHANNELS = ("height", "warm", "wet", "relief", "soil", "vegetation", "air", "warp_x", "warp_y", "warp_z")
_LATTICE_POINTS = 285  # Fibonacci points on the sphere; about LAND_SHARE of them become regions
_SYLLABLES = (
    "ba",
    "da",
    "fe",
    "ga",
    "ho",
    "ka",
    "lo",
    "mi",
    "no",
    "ra",
    "so",
    "ta",
    "ve",
    "zu",
    "pe",
    "ri",
    "du",
    "sha",
)
_ENDINGS = ("via", "land", "ria", "mark", "stan", "nor", "dal", "mor", "tia", "heim")


@dataclass(frozen=True)
class Region:
    """One land's style. Neighbouring regions differ in most of these; the culture is shared by a dozen of them."""

    index: int
    name: str
    culture: int
    roof: str
    roof_shade: float
    tree: str
    fields: str
    wall: str
    road: str
    line: str
    line_colour: str
    edge: str
    post: str
    post_colour: str
    flag: str
    flag_colours: tuple[str, str]


@dataclass(frozen=True)
class Site:
    """What the globe says about one point; the fields are the channels, each in 0..1 except height (0 = sea)."""

    height: float
    warm: float
    wet: float
    relief: float
    soil: float
    vegetation: float
    air: float
    downhill: float
    region: Region
    biome: str


class World:
    """Tables of one seed: channels (361, 720, C) every half degree from 90 N, 180 W, and the regions."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        lats = [90.0 - GRID_DEGREES * i for i in range(_ROWS)]
        lons = [-180.0 + GRID_DEGREES * j for j in range(_COLS)]
        self._unit = _unit_vectors(lats, lons)
        weight = np.repeat(np.array([round(math.cos(math.radians(v)), 9) for v in lats]), _COLS)
        self._table = _channels(self._unit, weight, seed).reshape(_ROWS, _COLS, len(CHANNELS))
        self.centres, self.regions = _regions(self, seed)

    def sample(self, lat: Floats, lon: Floats) -> Floats:
        """Channels (N, C) at N points by bilinear interpolation."""
        y = (90.0 - lat) / GRID_DEGREES
        x = ((lon + 180.0) % 360.0) / GRID_DEGREES
        i = np.minimum(y.astype(np.int64), _ROWS - 2)
        j = np.minimum(x.astype(np.int64), _COLS - 1)
        j2 = (j + 1) % _COLS
        fy, fx = (y - i)[:, None], (x - j)[:, None]
        t = self._table
        top = t[i, j] * (1.0 - fx) + t[i, j2] * fx
        bottom = t[i + 1, j] * (1.0 - fx) + t[i + 1, j2] * fx
        out: Floats = top * (1.0 - fy) + bottom * fy
        return out

    def is_land(self, lat: Floats, lon: Floats) -> NDArray[np.bool_]:
        """(N,) whether each point, in degrees, is above the sea."""
        return self.sample(lat, lon)[:, 0] > 0.0

    def site(self, lat: float, lon: float) -> Site:
        """Everything about one point."""
        eps = 0.25
        south, north = max(lat - eps, -90.0), min(lat + eps, 90.0)
        lats = np.array([lat, north, lat, south, lat])
        lons = np.array([lon, lon, lon + eps, lon, lon - eps])
        rows = self.sample(lats, lons)
        c = [float(v) for v in rows[0]]
        up_north = float(rows[1, 0] - rows[3, 0])
        up_east = float(rows[2, 0] - rows[4, 0]) / max(math.cos(math.radians(lat)), 0.05)
        downhill = round(math.degrees(math.atan2(-up_east, -up_north)), 3) % 360.0
        region = self.regions[self.region_index(lat, lon, c[7:10])]
        return Site(c[0], c[1], c[2], c[3], c[4], c[5], c[6], downhill, region, biome_of(c[1], c[2]))

    def region_index(self, lat: float, lon: float, warp: list[float]) -> int:
        """The region with the nearest centre, after the warp (three channels) that makes borders wander."""
        phi, lam = math.radians(lat), math.radians(lon)
        v = (math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi))
        x, y, z = (round(a + WANDER * (w - 0.5), 9) for a, w in zip(v, warp, strict=True))
        return int(np.argmax(self.centres[:, 0] * x + self.centres[:, 1] * y + self.centres[:, 2] * z))

    def grid(self) -> tuple[Floats, NDArray[np.int64]]:
        """The whole table (361, 720, C) and the region index of each of its points, for maps."""
        v = self._unit + WANDER * (self._table.reshape(-1, len(CHANNELS))[:, 7:10] - 0.5)
        best = np.full(len(v), -2.0)
        index = np.zeros(len(v), np.int64)
        for k, (x, y, z) in enumerate(self.centres):
            dot = v[:, 0] * x + v[:, 1] * y + v[:, 2] * z
            closer = dot > best
            best[closer] = dot[closer]
            index[closer] = k
        return self._table, index.reshape(_ROWS, _COLS)


@lru_cache(maxsize=4)
def world_of(seed: int) -> World:
    """The tables of a seed, kept for the next caller (half a second to build)."""
    return World(seed)


def biome_of(warm: float, wet: float) -> str:
    """The biome of a climate; both in 0..1, equalised over land, so the thresholds are shares of land."""
    if warm < 0.09:
        return BIOMES[0]
    if warm < 0.20:
        return BIOMES[1]
    if warm < 0.36:
        return BIOMES[2]
    if wet < 0.2 and warm > 0.45:
        return "desert"
    if warm < 0.66:
        return "forest" if wet > 0.55 else "grassland"
    return "rainforest" if wet > 0.62 else "savanna"


def _unit_vectors(lats: list[float], lons: list[float]) -> Floats:
    # math on scalars, rounded: NumPy's vector trigonometry may differ in the last bit between processors
    sin_lat = np.array([round(math.sin(math.radians(v)), 9) for v in lats])
    cos_lat = np.array([round(math.cos(math.radians(v)), 9) for v in lats])
    sin_lon = np.array([round(math.sin(math.radians(v)), 9) for v in lons])
    cos_lon = np.array([round(math.cos(math.radians(v)), 9) for v in lons])
    x = cos_lat[:, None] * cos_lon[None, :]
    y = cos_lat[:, None] * sin_lon[None, :]
    z = np.repeat(sin_lat[:, None], len(lons), axis=1)
    return np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)


def _equalise(values: Floats, weight: Floats) -> Floats:
    """Replace each value by its weighted rank in 0..1, so that every level covers the same area."""
    order = np.argsort(values, kind="stable")
    rank = np.cumsum(weight[order])
    out: Floats = np.empty_like(values)
    out[order] = rank / rank[-1]
    return out


def _equalise_on(values: Floats, weight: Floats, mask: NDArray[np.bool_]) -> Floats:
    order = np.argsort(values[mask], kind="stable")
    rank = np.cumsum(weight[mask][order])
    return np.asarray(np.interp(values, values[mask][order], rank / rank[-1]), np.float64)


def _channels(unit: Floats, weight: Floats, seed: int) -> Floats:
    def noise(k: int, frequency: float, octaves: int, gain: float = 0.5) -> Floats:
        return fractal_noise(unit, frequency, octaves, mix64(seed, 100 + k), gain)

    rank = _equalise(noise(0, 1.5, 5, 0.52), weight)
    height = (rank - (1.0 - LAND_SHARE)) / LAND_SHARE
    land = height > 0.0
    cold = np.abs(unit[:, 2]) ** 2
    warm = -cold + 0.13 * noise(1, 2.6, 3) - 0.10 * np.maximum(height, 0.0)
    wet = noise(2, 2.2, 3)
    columns: list[Floats] = [height, _equalise_on(warm, weight, land), _equalise_on(wet, weight, land)]
    columns.append(_equalise_on(1.2 * noise(3, 3.1, 3) + 0.8 * height, weight, land))
    for k, frequency in ((4, 1.9), (5, 2.1), (6, 1.6)):
        columns.append(_equalise_on(noise(k, frequency, 2, 0.25), weight, land))
    for k in (7, 8, 9):
        columns.append(np.clip(0.5 + 0.4 * noise(k, 6.0, 3), 0.0, 1.0))
    table: Floats = np.stack(columns, axis=1).round(9)
    return table


def _regions(world: World, seed: int) -> tuple[Floats, tuple[Region, ...]]:
    dice = Dice(seed, 200)
    points: list[tuple[float, float, float]] = []
    golden = math.pi * (3.0 - math.sqrt(5.0))
    for k in range(_LATTICE_POINTS):
        z = 1.0 - (2.0 * k + 1.0) / _LATTICE_POINTS
        radius = math.sqrt(1.0 - z * z)
        raw = [math.cos(golden * k) * radius, math.sin(golden * k) * radius, z]
        raw = [v + 0.05 * dice.span(-1.0, 1.0) for v in raw]
        norm = math.sqrt(sum(v * v for v in raw))
        x, y, z = (round(v / norm, 9) for v in raw)
        lat, lon = math.degrees(math.asin(z)), math.degrees(math.atan2(y, x))
        if world.is_land(np.array([round(lat, 6)]), np.array([round(lon, 6)]))[0]:
            points.append((x, y, z))
    centres = np.array(points)
    culture = _cultures(points, dice)
    return centres, _styles(points, culture, dice)


def _dot(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cultures(points: list[tuple[float, float, float]], dice: Dice) -> list[int]:
    # farthest-point seeds keep the homes of the cultures apart; each region joins the nearest home
    homes = [points[dice.below(len(points))]]
    while len(homes) < len(CULTURES):
        homes.append(min(points, key=lambda p: (max(_dot(p, h) for h in homes), p)))
    names = dice.shuffled(range(len(CULTURES)))
    member = [0] * len(points)
    for _ in range(6):  # Lloyd's iteration evens out their sizes
        member = [max(range(len(homes)), key=lambda h: _dot(p, homes[h])) for p in points]
        for h in range(len(homes)):
            own = [p for p, m in zip(points, member, strict=True) if m == h]
            total = [sum(p[axis] for p in own) for axis in range(3)]
            norm = math.sqrt(sum(v * v for v in total)) or 1.0
            homes[h] = (total[0] / norm, total[1] / norm, total[2] / norm) if own else homes[h]
    return [names[m] for m in member]


def _styles(points: list[tuple[float, float, float]], culture: list[int], dice: Dice) -> tuple[Region, ...]:
    done: list[tuple[tuple[float, float, float], dict[str, Any]]] = []
    menus: dict[str, tuple[Any, ...]] = {
        "wall": tuple(WALLS),
        "road": tuple(ROADS),
        "edge": ("none", *PAINTS),
        "post": POSTS,
        "post_colour": tuple(PAINTS),
        "flag": FLAGS,
        "roof_shade": (0.78, 1.0, 1.2),
        "line": (*((kind, colour) for kind in LINES[1:] for colour in LINE_COLOURS), ("none", "white")),
        "flag_colours": tuple((a, b) for a in PAINTS for b in PAINTS if a != b),
    }
    names: set[str] = set()
    regions = []
    for index, point in enumerate(points):
        style: dict[str, Any] = {}
        for key, menu in menus.items():
            # the option whose users are farthest away: neighbours differ, and far reuse can't be mistaken
            options = dice.shuffled(menu)
            near = [max((_dot(point, q) for q, s in done if s[key] == option), default=-1.0) for option in options]
            good = sorted(range(len(options)), key=lambda i: near[i])[: max(1, len(options) // 3)]
            style[key] = options[dice.pick(good)]
        done.append((point, style))
        name = _name(dice)
        while name in names:
            name = _name(dice)
        names.add(name)
        roof, tree, fields = CULTURES[culture[index]]
        kind, colour = style.pop("line")
        regions.append(
            Region(
                index=index,
                name=name,
                culture=culture[index],
                roof=roof,
                tree=tree,
                fields=fields,
                line=kind,
                line_colour=colour,
                **style,
            )
        )
        style["line"] = (kind, colour)
    return tuple(regions)


def _name(dice: Dice) -> str:
    return (dice.pick(_SYLLABLES) + dice.pick(_SYLLABLES) + dice.pick(_ENDINGS)).capitalize()
