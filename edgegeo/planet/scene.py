"""The scene of a place in metres: ground polygons and upright things, shared by the tile and the photo.

x points east and y north; the camera of the photo stands at the origin, on the road. The tile shows
|x|, |y| <= HALF; some ground goes on beyond it for the photo's horizon.
"""

import math
from dataclasses import dataclass, field

from edgegeo.planet.noise import Dice
from edgegeo.planet.palette import (
    AIR_PATH,
    COVER,
    CROP_COLOURS,
    PAINTS,
    RGB,
    ROADS,
    ROOFS,
    ROW_CROPS,
    SNOW,
    SOIL_PATH,
    VEGETATION_PATH,
    WALLS,
    along,
    lit,
    mix,
)
from edgegeo.planet.place import Place

HALF = 160.0
ROAD_HALF = 5.5
VERGE_HALF = 12.0
Point = tuple[float, float]

HOUSES = {"none": 0, "farm": 2, "hamlet": 4, "village": 8, "town": 15}


@dataclass(frozen=True)
class Patch:
    """A piece of ground: corners (x, y), colour, and the direction and spacing of its rows (0 = none)."""

    corners: tuple[Point, ...]
    colour: RGB
    row_step: float = 0.0
    rows_along: bool = True
    circle: bool = False


@dataclass(frozen=True)
class Thing:
    """Something upright at (x, y): `kind` is house, tree, post, sign or a landmark; sizes in metres."""

    kind: str
    x: float
    y: float
    size: float
    turn: int = 0


@dataclass
class Scene:
    """All of a place, in drawing order from the ground up."""

    place: Place
    soil: RGB
    foliage: RGB
    air: RGB
    ground: RGB
    along: Point
    across: Point
    patches: list[Patch] = field(default_factory=list)
    far: list[Patch] = field(default_factory=list)
    shore: list[tuple[Point, ...]] = field(default_factory=list)
    water: list[tuple[Point, ...]] = field(default_factory=list)
    forest_floor: list[tuple[Point, ...]] = field(default_factory=list)
    roads: list[tuple[Point, Point]] = field(default_factory=list)
    roundabout: Point | None = None
    things: list[Thing] = field(default_factory=list)
    water_colour: RGB = (0, 0, 0)
    road_colour: RGB = (0, 0, 0)
    roof: RGB = (0, 0, 0)
    wall: RGB = (0, 0, 0)

    def at(self, u: float, v: float) -> Point:
        """The point u metres along the road and v metres to its right."""
        return (u * self.along[0] + v * self.across[0], u * self.along[1] + v * self.across[1])


def _tidy(metres: float) -> float:
    """Micrometres: hides the last bit of sine and cosine, which differs between C libraries."""
    return round(metres, 6)


def octant_point(octant: int, distance: float) -> Point:
    """The point at a distance (m) in the middle of an octant."""
    angle = math.radians(45.0 * octant)
    return (_tidy(distance * math.sin(angle)), _tidy(distance * math.cos(angle)))


def build_scene(place: Place) -> Scene:
    """Lay out a land place; the same place gives the same scene."""
    soil = along(SOIL_PATH, place.soil)
    foliage = along(VEGETATION_PATH, place.vegetation)
    snow = SNOW.get(place.biome, 0.0)
    white = (246, 248, 252)
    angle = math.radians(45.0 * place.road)
    s, c = round(math.sin(angle), 9), round(math.cos(angle), 9)
    region = place.region
    scene = Scene(
        place,
        mix(soil, white, 0.35 * snow),
        mix(foliage, white, 0.3 * snow),
        along(AIR_PATH, place.air),
        mix(mix(soil, foliage, COVER[place.biome]), white, snow),
        (s, c),
        (c, -s),
    )
    scene.road_colour = ROADS[region.road]
    scene.roof = lit(ROOFS[region.roof], region.roof_shade)
    scene.wall = WALLS[region.wall]
    scene.water_colour = mix(mix((30, 84, 150), soil, 0.18), foliage, 0.12)
    dice = Dice(place.seed, 400, place.key)
    _fields(scene, dice)
    _water(scene, dice)
    _roads(scene)
    for kind, octant in zip(place.landmarks, place.landmark_octants, strict=True):
        x, y = octant_point(octant, dice.span(95.0, 106.0))
        scene.things.append(Thing(kind, x, y, 20.0))
    _settlement(scene, dice)
    _forest(scene, dice)
    _roadside(scene, dice)
    _scatter(scene, dice)
    return scene


# edges of the parcels along the road and away from it, per field pattern
_CUTS: dict[str, tuple[float, float, bool]] = {
    "strips": (26.0, 230.0, False),
    "blocks": (78.0, 72.0, True),
    "ribbons": (230.0, 24.0, True),
    "patchwork": (46.0, 40.0, True),
    "circles": (84.0, 84.0, True),
    "hedges": (64.0, 56.0, False),
}


def _fields(scene: Scene, dice: Dice) -> None:
    place = scene.place
    step_u, step_v, rows_along = _CUTS[place.region.fields]
    colours = [mix(mix(CROP_COLOURS[crop], scene.soil, 0.10), scene.foliage, 0.06) for crop in place.crops]
    for side, sign in ((0, 1.0), (1, -1.0)):
        half_plane = ((-4000.0, 0.0), (4000.0, 0.0), (4000.0, 4000.0), (-4000.0, 4000.0))
        corners = tuple(scene.at(u, sign * v) for u, v in half_plane)
        scene.far.append(Patch(corners, colours[side]))
        v = VERGE_HALF
        while v < 230.0:
            v2 = min(v + step_v * dice.span(0.8, 1.2), 236.0)
            u = -236.0
            while u < 236.0:
                u2 = min(u + step_u * dice.span(0.75, 1.25), 240.0)
                scene.patches.append(_parcel(scene, dice, colours, side, (u, u2, sign * v, sign * v2), rows_along))
                u = u2
            v = v2


def _parcel(
    scene: Scene, dice: Dice, colours: list[RGB], side: int, box: tuple[float, float, float, float], rows_along: bool
) -> Patch:
    u, u2, v, v2 = box
    crop = scene.place.crops[side]
    colour = colours[side]
    fallow = dice.unit()
    if fallow < 0.12:
        colour, crop = scene.ground, ""
    colour = lit(colour, dice.span(0.86, 1.1))
    corners = (scene.at(u, v), scene.at(u2, v), scene.at(u2, v2), scene.at(u, v2))
    step = 7.0 if crop in ROW_CROPS else 0.0
    return Patch(corners, colour, step, rows_along, scene.place.region.fields == "circles")


def _blob(x: float, y: float, radius: float, wobble: float, dice: Dice, n: int = 22) -> tuple[Point, ...]:
    phase = [dice.span(0.0, 6.2832) for _ in range(3)]
    points = []
    for k in range(n):
        a = 6.283185307 * k / n
        r = radius * (
            1.0
            + wobble
            * (0.5 * math.sin(2 * a + phase[0]) + 0.35 * math.sin(3 * a + phase[1]) + 0.2 * math.sin(5 * a + phase[2]))
        )
        points.append((_tidy(x + r * math.cos(a)), _tidy(y + r * math.sin(a))))
    return tuple(points)


def _band(octant: int, near: float, width: float, sway: float, dice: Dice, extent: float) -> tuple[Point, ...]:
    """A winding band across the octant's direction, its inner edge about `near` metres away."""
    fx, fy = octant_point(octant, 1.0)
    p1, p2 = dice.span(0.0, 6.2832), dice.span(0.0, 6.2832)
    inner, outer = [], []
    steps = 26
    for k in range(steps + 1):
        t = -extent + 2.0 * extent * k / steps
        shift = sway * (math.sin(t / 42.0 + p1) + 0.5 * math.sin(t / 23.0 + p2))
        d1, d2 = near + shift, near + shift + width
        inner.append((_tidy(fx * d1 + fy * t), _tidy(fy * d1 - fx * t)))
        outer.append((_tidy(fx * d2 + fy * t), _tidy(fy * d2 - fx * t)))
    return tuple(inner + outer[::-1])


def _water(scene: Scene, dice: Dice) -> None:
    place = scene.place
    if place.water == "river":
        state = dice.below(1 << 40)
        scene.shore.append(_band(place.water_octant, 17.0, 32.0, 5.0, Dice(state), 260.0))
        scene.water.append(_band(place.water_octant, 21.0, 24.0, 5.0, Dice(state), 260.0))
    elif place.water == "lake":
        x, y = octant_point(place.water_octant, 88.0)
        radius, state = dice.span(42.0, 52.0), dice.below(1 << 40)
        scene.shore.append(_blob(x, y, radius + 6.0, 0.28, Dice(state)))
        scene.water.append(_blob(x, y, radius, 0.28, Dice(state)))
    elif place.water == "sea":
        state = dice.below(1 << 40)
        scene.shore.append(_band(place.water_octant, 38.0, 4000.0, 6.0, Dice(state), 300.0))
        scene.water.append(_band(place.water_octant, 58.0, 4000.0, 6.0, Dice(state), 300.0))


def _roads(scene: Scene) -> None:
    place = scene.place
    if place.crossing != "none":
        u = _crossing_u(scene)
        start, end = -400.0, 400.0
        if place.water == "sea":  # a side road that ends at the coastal one, coming from inland
            start, end = (-400.0 if (place.water_octant - place.road) % 8 == 2 else 400.0), 0.0
        scene.roads.append((scene.at(u, start), scene.at(u, end)))
    scene.roads.append((scene.at(-400.0, 0.0), scene.at(400.0, 0.0)))
    if place.crossing == "roundabout":
        scene.roundabout = scene.at(_crossing_u(scene), 0.0)


def _crossing_u(scene: Scene) -> float:
    place = scene.place
    forward = math.cos(math.radians(place.heading - 45.0 * place.road)) > 0
    return 34.0 if forward == place.crossing_ahead else -34.0


def _settlement(scene: Scene, dice: Dice) -> None:
    place = scene.place
    n = HOUSES[place.settlement]
    if n == 0:
        return
    x0, y0 = octant_point(place.settlement_octant, 96.0)
    if place.settlement == "farm":
        scene.things.append(Thing("house", x0 - 14.0, y0, 22.0, 0))
        scene.things.append(Thing("house", x0 + 14.0, y0 + 6.0, 30.0, 1))
        return
    side = math.ceil(math.sqrt(n)) + 1
    pitch = 25.0 if n < 10 else 23.0
    middle = (side - 1) / 2
    slots = sorted(range(side * side), key=lambda k: (abs(k % side - middle) + abs(k // side - middle), k))
    for k in slots:
        x = x0 + (k % side - (side - 1) / 2) * pitch + dice.span(-2.0, 2.0)
        y = y0 + (k // side - (side - 1) / 2) * pitch + dice.span(-2.0, 2.0)
        house = Thing("house", x, y, dice.span(16.0, 20.0), dice.below(2))
        if n > 0 and _is_free(scene, x, y, 10.0, 30.0):
            scene.things.append(house)
            n -= 1


def _is_free(scene: Scene, x: float, y: float, margin: float, clear: float) -> bool:
    """Whether a point is `margin` metres off every road and the water, and `clear` off the landmarks."""
    place = scene.place
    if abs(x * scene.across[0] + y * scene.across[1]) < VERGE_HALF + margin:
        return False
    u = x * scene.along[0] + y * scene.along[1]
    if place.crossing != "none" and abs(u - _crossing_u(scene)) < ROAD_HALF + 2.0 + margin:
        return False
    fx, fy = octant_point(max(place.water_octant, 0), 1.0)
    depth = x * fx + y * fy
    if place.water == "river" and 14.0 - margin < depth < 52.0 + margin:
        return False
    if place.water == "sea" and depth > 38.0 - margin:
        return False
    lake = octant_point(place.water_octant, 88.0) if place.water == "lake" else (1e6, 1e6)
    if math.hypot(x - lake[0], y - lake[1]) < 66.0 + margin:
        return False
    marks = (t for t in scene.things if t.kind in place.landmarks)
    return all(abs(x - t.x) > clear or abs(y - t.y) > clear for t in marks)


def _forest(scene: Scene, dice: Dice) -> None:
    place = scene.place
    if place.forest_octant < 0:
        return
    x0, y0 = octant_point(place.forest_octant, 98.0)
    scene.forest_floor.append(_blob(x0, y0, 44.0, 0.2, dice))
    for k in range(34):
        angle, r = 2.399963 * k, 42.0 * math.sqrt((k + 0.5) / 34.0)
        x = _tidy(x0 + r * math.cos(angle) + dice.span(-2.0, 2.0))
        y = _tidy(y0 + r * math.sin(angle) + dice.span(-2.0, 2.0))
        tree = Thing("tree", x, y, dice.span(11.0, 15.0))
        if _is_free(scene, x, y, 4.0, 22.0):
            scene.things.append(tree)


def _roadside(scene: Scene, dice: Dice) -> None:
    place = scene.place
    sign = 1.0 if place.key & 1 else -1.0
    theta = math.radians(place.heading - 45.0 * place.road)
    forward = 1.0 if math.cos(theta) > 0 else -1.0
    cross = _crossing_u(scene) if place.crossing != "none" else 1e6
    for k in range(-5, 6):
        u = 30.0 * k + 15.0
        if place.biome != "ice":
            tx, ty = scene.at(u + dice.span(-3.0, 3.0), sign * 17.0)
            if dice.unit() < 0.85 and abs(u - cross) > 14.0 and not _in_river(scene, tx, ty):
                scene.things.append(Thing("tree", tx, ty, dice.span(11.0, 14.0)))
        px, py = scene.at(u, -sign * 9.5)
        if abs(u - cross) > 8.0:
            scene.things.append(Thing("post", px, py, 9.0))
    x, y = scene.at(forward * 19.0, sign * 11.0)
    scene.things.append(Thing("sign", x, y, 6.0))


_DENSITY = {
    "ice": 0,
    "tundra": 5,
    "taiga": 26,
    "forest": 14,
    "grassland": 5,
    "desert": 4,
    "savanna": 10,
    "rainforest": 26,
}


def _in_river(scene: Scene, x: float, y: float) -> bool:
    fx, fy = octant_point(max(scene.place.water_octant, 0), 1.0)
    return scene.place.water == "river" and 14.0 < x * fx + y * fy < 50.0


def _scatter(scene: Scene, dice: Dice) -> None:
    """Lone trees or boulders, kept off roads, water and whatever is built."""
    houses = [(t.x, t.y) for t in scene.things if t.kind == "house"]
    for _ in range(_DENSITY[scene.place.biome]):
        x, y, size = dice.span(-HALF, HALF), dice.span(-HALF, HALF), dice.span(8.0, 12.0)
        if _is_free(scene, x, y, 8.0, 32.0) and all(abs(x - a) > 16.0 or abs(y - b) > 16.0 for a, b in houses):
            scene.things.append(Thing("tree", x, y, size))


def post_paint(scene: Scene) -> RGB:
    """The colour of the region's roadside posts."""
    return PAINTS[scene.place.region.post_colour]
