"""A place: what one spot on the planet holds, drawn from its coordinates before anything is painted."""

from dataclasses import dataclass

from edgegeo.planet.noise import Dice
from edgegeo.planet.palette import CROPS, LANDMARKS, OCTANTS
from edgegeo.planet.world import Region, Site, World

COAST_HEIGHT = 0.09
WATERS = ("none", "river", "lake", "sea")
SETTLEMENTS = ("none", "farm", "hamlet", "village", "town")
CROSSINGS = ("none", "crossroads", "roundabout")
AXES = {0: "north to south", 1: "northeast to southwest", 2: "east to west", 3: "northwest to southeast"}
QUANTUM = 10_000  # places are told apart down to 1e-4 degrees, about 11 m


@dataclass(frozen=True)
class Place:
    """One spot on the planet and everything its two pictures and its description agree on.

    Octants count clockwise from north (0..7, 45 degrees each); -1 means the thing is absent. `road` is the octant,
    0..3, of the road's direction. `crops` are those right and left of someone looking along it. `heading` is the
    direction of the default photo, in degrees from north.
    """

    lat: float
    lon: float
    seed: int
    biome: str
    region: Region
    height: float
    relief: float
    warm: float
    soil: float
    vegetation: float
    air: float
    crops: tuple[str, str]
    road: int
    crossing: str
    crossing_ahead: bool
    water: str
    water_octant: int
    settlement: str
    settlement_octant: int
    forest_octant: int
    landmarks: tuple[str, str]
    landmark_octants: tuple[int, int]
    heading: float
    sun: float
    haze: float
    key: int

    @property
    def land(self) -> bool:
        """Whether the place is above the sea."""
        return self.height > 0.0

    @property
    def crop_octants(self) -> tuple[int, int]:
        """The octants, seen from the road, in which the two crops lie."""
        return (self.road + 2) % 8, (self.road + 6) % 8

    def facts(self) -> dict[str, str]:
        """Short answers (1 to 4 words) by question key; every place has the same keys, absent things say 'none'."""
        if not self.land:
            return {"biome": "sea", "region": "none", "water": "sea"}
        right, left = self.crop_octants
        return {
            "biome": self.biome,
            "region": self.region.name,
            "main crop": self.crops[0],
            "main crop side": OCTANTS[right],
            "other crop": self.crops[1],
            "other crop side": OCTANTS[left],
            "water": self.water,
            "water side": _octant(self.water_octant),
            "settlement": self.settlement,
            "settlement side": _octant(self.settlement_octant),
            "landmark": self.landmarks[0],
            "landmark side": OCTANTS[self.landmark_octants[0]],
            "second landmark": self.landmarks[1],
            "second landmark side": OCTANTS[self.landmark_octants[1]],
            "forest side": _octant(self.forest_octant),
            "crossing": self.crossing,
            "road direction": AXES[self.road],
            "road surface": self.region.road,
            "road line": "none" if self.region.line == "none" else f"{self.region.line} {self.region.line_colour}",
            "road edge": self.region.edge,
            "roof colour": self.region.roof if self.settlement != "none" else "none",
            "wall colour": self.region.wall if self.settlement != "none" else "none",
            "tree": self.region.tree if self.biome != "ice" else "none",
        }


def _octant(octant: int) -> str:
    return OCTANTS[octant] if octant >= 0 else "none"


def quantise(lat: float, lon: float) -> tuple[int, int]:
    """Coordinates in units of 1e-4 degrees; the longitude in [-180, 180) and 0 at the poles."""
    row = round(lat * QUANTUM)
    col = (round(lon * QUANTUM) + 180 * QUANTUM) % (360 * QUANTUM) - 180 * QUANTUM
    return row, 0 if abs(row) == 90 * QUANTUM else col


def make_place(world: World, lat: float, lon: float) -> Place:
    """The place at checked coordinates (degrees)."""
    row, col = quantise(lat, lon)
    lat, lon = row / QUANTUM, col / QUANTUM
    site = world.site(lat, lon)
    dice = Dice(world.seed, 300, row, col)
    water, water_octant = _water(site, dice)
    road = _road(water, water_octant, dice)
    heading_octant, free = _free_octants(road, water, water_octant, dice)
    landmarks = _landmarks(water, dice)
    ahead = [o for o in free if min((o - heading_octant) % 8, (heading_octant - o) % 8) == 1]
    first = dice.pick(ahead or free)
    free.remove(first)
    free = dice.shuffled(free)
    second = free.pop()
    settlement = dice.weighted(SETTLEMENTS, (0.12, 0.2, 0.22, 0.24, 0.22))
    settlement_octant = free.pop() if settlement != "none" else -1
    forest = bool(free) and dice.unit() < FOREST_CHANCE[site.biome]
    turn = 8.0 if (first - heading_octant) % 8 == 1 else -8.0
    key = dice.below(1 << 48)
    return Place(
        lat=lat,
        lon=lon,
        seed=world.seed,
        biome=site.biome,
        region=site.region,
        height=site.height,
        relief=site.relief,
        warm=site.warm,
        soil=site.soil,
        vegetation=site.vegetation,
        air=site.air,
        crops=_crops(site.biome, dice),
        road=road,
        crossing=dice.weighted(CROSSINGS, (0.5, 0.3, 0.2)),
        crossing_ahead=dice.unit() < 0.5,
        water=water,
        water_octant=water_octant,
        settlement=settlement,
        settlement_octant=settlement_octant,
        forest_octant=free.pop() if forest else -1,
        landmarks=landmarks,
        landmark_octants=(first, second),
        heading=round((heading_octant * 45.0 + dice.span(0.2, 1.0) * turn) % 360.0, 1),
        sun=round(dice.span(0.93, 1.07), 3),
        haze=round(dice.span(0.0, 0.14), 3),
        key=key,
    )


FOREST_CHANCE = {
    "ice": 0.0,
    "tundra": 0.2,
    "taiga": 0.8,
    "forest": 0.7,
    "grassland": 0.4,
    "desert": 0.15,
    "savanna": 0.4,
    "rainforest": 0.85,
}


def _water(site: Site, dice: Dice) -> tuple[str, int]:
    if 0.0 < site.height < COAST_HEIGHT:
        return "sea", round(site.downhill / 45.0) % 8
    water = dice.weighted(WATERS[:3], (0.34, 0.33, 0.33))
    return water, dice.below(8) if water != "none" else -1


def _road(water: str, water_octant: int, dice: Dice) -> int:
    road = dice.below(4)
    if water == "sea":
        return (water_octant + 2) % 4  # along the coast
    if water == "lake" and road == water_octant % 4:
        return (road + 1) % 4  # never into the lake
    if water == "river" and road == (water_octant + 2) % 4:
        return (road + dice.pick((1, 2, 3))) % 4 if dice.unit() < 0.5 else road
    return road


def _free_octants(road: int, water: str, water_octant: int, dice: Dice) -> tuple[int, list[int]]:
    """The octant the default photo looks to, and the octants where something can be built."""
    taken = {road, road + 4}
    if water == "lake":
        taken.add(water_octant)
    elif water == "sea":
        taken |= {(water_octant + d) % 8 for d in (-1, 0, 1)}
    return road + 4 * dice.below(2), [o for o in range(8) if o not in taken]


def _landmarks(water: str, dice: Dice) -> tuple[str, str]:
    kinds = [kind for kind in LANDMARKS if kind != "lighthouse"]
    first = dice.pick(kinds)
    kinds.remove(first)
    second = dice.pick(kinds)
    if water == "sea" and dice.unit() < 0.4:
        first = "lighthouse"
    return first, second


def _crops(biome: str, dice: Dice) -> tuple[str, str]:
    options = list(CROPS[biome])
    first = dice.pick(options)
    options.remove(first)
    return first, dice.pick(options)
