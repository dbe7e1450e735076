"""The ground photo: a place from the road, the camera at the middle of its tile, 110 degrees wide."""

import math

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from edgegeo.planet.landmarks import SIDES
from edgegeo.planet.noise import Dice
from edgegeo.planet.palette import FLAGS, LINE_COLOURS, PAINTS, RGB, lit, mix
from edgegeo.planet.pen import Pen
from edgegeo.planet.place import Place
from edgegeo.planet.plants import house_side, tree_colour, tree_side
from edgegeo.planet.satellite import SHEET, grain_sheets, light_table
from edgegeo.planet.scene import ROAD_HALF, VERGE_HALF, Point, Scene, Thing, build_scene, post_paint

FOCAL = 0.35  # of the picture's width: half the width over tan(55 degrees)
HORIZON = 0.45
CAMERA_HEIGHT = 10.0
NEAR = 1.5
_SWELL = {"tree": 1.0, "post": 1.0, "sign": 1.0, "house": 1.25}  # and 1.35 for landmarks: they must be seen from afar


class Camera:
    """Projects metres around the camera to pixels; x east, y north, h up."""

    def __init__(self, heading: float, width: int) -> None:
        theta = math.radians(heading)
        self.sin, self.cos = round(math.sin(theta), 9), round(math.cos(theta), 9)
        self.focal, self.middle, self.horizon = FOCAL * width, width / 2.0, HORIZON * width

    def turn(self, x: float, y: float) -> Point:
        """(sideways, depth) of a ground point in metres."""
        return (x * self.cos - y * self.sin, x * self.sin + y * self.cos)

    def flat(self, corners: tuple[Point, ...]) -> list[Point]:
        """The picture of a ground polygon, cut at the near plane; empty if it is all behind."""
        turned = [self.turn(x, y) for x, y in corners]
        if max(z for _, z in turned) <= NEAR:
            return []
        out: list[Point] = []
        f, drop = self.focal, self.focal * CAMERA_HEIGHT
        x0, z0 = turned[-1]
        for x, z in turned:
            if (z > NEAR) != (z0 > NEAR):
                t = (NEAR - z0) / (z - z0)
                out.append((self.middle + f * (x0 + (x - x0) * t) / NEAR, self.horizon + drop / NEAR))
            if z > NEAR:
                out.append((self.middle + f * x / z, self.horizon + drop / z))
            x0, z0 = x, z
        return out


class SidePen(Pen):
    """Draws an upright thing from the side, y up from the ground at the thing's depth."""

    def move(self, camera: Camera, side: float, depth: float, swell: float) -> None:
        """Stand at (side, depth) metres from the camera; things are drawn `swell` times their size."""
        scale = camera.focal / depth
        self.ox = camera.middle + side * scale
        self.oy = camera.horizon + CAMERA_HEIGHT * scale
        self.scale = scale * swell


def render_ground(place: Place, heading: float, size: int) -> Image.Image:
    """The photo of a place towards `heading` (degrees from north), (size, size) RGB."""
    width = 2 * size
    camera = Camera(heading, width)
    image = Image.new("RGB", (width, width))
    if not place.land:
        _sky(image, (150, 190, 230), Dice(place.seed, 700, place.key), 0.5, place.seed)
        draw = ImageDraw.Draw(image)
        draw.rectangle((0, camera.horizon, width, width), (30, 84, 150))
        _grain(image, place, camera)
        return image.reduce(2).point(light_table(place))
    scene = build_scene(place)
    dice = Dice(place.seed, 700, place.key)
    _sky(image, scene.air, dice, 0.25 + 0.6 * dice.unit(), place.seed)
    draw = ImageDraw.Draw(image)
    _hills(draw, camera, scene, width)
    _ground(draw, camera, scene, width)
    _grain(image, place, camera)
    _road_detail(draw, camera, scene)
    _things(draw, camera, scene)
    return image.reduce(2).point(light_table(place))


def _sky(image: Image.Image, air: RGB, dice: Dice, clouds: float, seed: int) -> None:
    width = image.width
    top = lit(mix(air, (40, 96, 200), 0.35), 0.86)
    low = mix(air, (255, 255, 255), 0.3)
    rows = [mix(top, low, (k / 15.0) ** 1.3) for k in range(16)]
    column = Image.fromarray(np.array(rows, np.uint8).reshape(16, 1, 3))
    height = int(HORIZON * width) + 2
    image.paste(column.resize((1, height), Image.Resampling.BILINEAR).resize((width, height)), (0, 0))
    _, lumps = grain_sheets(seed)
    x, y = dice.below(SHEET - 200), dice.below(SHEET - 60)
    mask = lumps.crop((x, y, x + 200, y + 60)).getchannel(0).resize((width, height), Image.Resampling.BILINEAR)
    cut = 131.0 + 9.0 * (1.0 - clouds)
    mask = mask.point([min(200, max(0, int((v - cut) * 14.0))) for v in range(256)])
    image.paste(mix((252, 252, 252), air, 0.15), (0, 0, width, height), mask)


def _hills(draw: ImageDraw.ImageDraw, camera: Camera, scene: Scene, width: int) -> None:
    """Two ranges on the horizon, as high as the relief; they stand at fixed bearings, whatever the heading."""
    place = scene.place
    bearing0 = math.degrees(math.atan2(camera.sin, camera.cos))
    tall = (0.012 + 0.16 * place.relief**2) * width
    for layer, (strength, fade) in enumerate(((1.0, 0.55), (0.5, 0.3))):
        dice = Dice(place.seed, 710 + layer, place.key)
        phase = [dice.span(0.0, 6.2832) for _ in range(3)]
        colour = mix(mix(scene.ground, scene.soil, 0.3), mix(scene.air, (120, 140, 180), 0.4), fade)
        ridge: list[Point] = []
        for k in range(41):
            x = width * k / 40.0
            bearing = math.radians(bearing0) + math.atan((x - camera.middle) / camera.focal)
            wave = 0.55 + 0.3 * math.sin(3 * bearing + phase[0]) + 0.2 * math.sin(7 * bearing + phase[1])
            wave += 0.12 * math.sin(17 * bearing + phase[2])
            ridge.append((x, round(camera.horizon - tall * strength * max(wave, 0.08), 2)))
        draw.polygon([*ridge, (width, camera.horizon + 2), (0, camera.horizon + 2)], lit(colour, 0.92))
        snow_line = camera.horizon - tall * (0.62 if place.warm > 0.3 else 0.25)
        if layer == 0 and (place.relief > 0.72 or place.warm < 0.2):
            cap = [(x, min(y, snow_line)) for x, y in ridge]
            low = [(x, max(y, min(snow_line, y + 0.03 * width))) for x, y in ridge]
            draw.polygon([*cap, *low[::-1]], (244, 247, 252))


def _ground(draw: ImageDraw.ImageDraw, camera: Camera, scene: Scene, width: int) -> None:
    draw.rectangle((0, camera.horizon, width, width), scene.ground)

    def fill(corners: tuple[Point, ...], colour: RGB) -> None:
        points = camera.flat(corners)
        if len(points) > 2:
            draw.polygon(points, colour)

    for patch in scene.far:
        fill(patch.corners, mix(patch.colour, scene.air, 0.3))
    for patch in scene.patches:
        fill(patch.corners, patch.colour)
        if patch.row_step:
            _rows(draw, camera, patch.corners, patch.rows_along, lit(patch.colour, 0.84))
    for corners in scene.forest_floor:
        fill(corners, lit(mix(scene.foliage, (20, 50, 30), 0.4), 0.7))
    sea = scene.place.water == "sea"
    bank = mix((240, 222, 170), scene.soil, 0.3) if sea else lit(mix(scene.soil, scene.foliage, 0.4), 0.75)
    for corners in scene.shore:
        fill(corners, bank)
    for corners in scene.water:
        fill(corners, mix(scene.water_colour, scene.air, 0.22))
    for end0, end1 in scene.roads[:-1]:
        fill(_strip(end0, end1, 11.0), scene.soil)
        fill(_strip(end0, end1, ROAD_HALF), scene.road_colour)
    if scene.roundabout:
        fill(_ring(scene.roundabout, 27.0), scene.soil)
    fill(_strip(*scene.roads[-1], VERGE_HALF), scene.soil)


def _rows(draw: ImageDraw.ImageDraw, camera: Camera, corners: tuple[Point, ...], along_road: bool, colour: RGB) -> None:
    a, b, c, d = corners if along_road else (corners[1], corners[2], corners[3], corners[0])
    if min(camera.turn(*p)[1] for p in corners) > 110.0 or max(camera.turn(*p)[1] for p in corners) < NEAR:
        return
    n = max(2, int(math.hypot(d[0] - a[0], d[1] - a[1]) / 7.0))
    for k in range(n):
        t0, t1 = (k + 0.3) / n, (k + 0.62) / n
        ends = ((a, d, t0), (b, c, t0), (b, c, t1), (a, d, t1))
        strip = tuple((p[0] + (q[0] - p[0]) * t, p[1] + (q[1] - p[1]) * t) for p, q, t in ends)
        points = camera.flat(strip)
        if len(points) > 2:
            draw.polygon(points, colour)


def _strip(a: Point, b: Point, half: float) -> tuple[Point, ...]:
    dx, dy = b[0] - a[0], b[1] - a[1]
    norm = math.hypot(dx, dy)
    nx, ny = -dy / norm * half, dx / norm * half
    return ((a[0] + nx, a[1] + ny), (b[0] + nx, b[1] + ny), (b[0] - nx, b[1] - ny), (a[0] - nx, a[1] - ny))


def _ring(centre: Point, radius: float) -> tuple[Point, ...]:
    steps = [2.0 * math.pi * k / 24 for k in range(24)]
    return tuple(
        (round(centre[0] + radius * math.cos(a), 6), round(centre[1] + radius * math.sin(a), 6)) for a in steps
    )


def _road_detail(draw: ImageDraw.ImageDraw, camera: Camera, scene: Scene) -> None:
    region = scene.place.region

    def fill(corners: tuple[Point, ...], colour: RGB) -> None:
        points = camera.flat(corners)
        if len(points) > 2:
            draw.polygon(points, colour)

    def lane(u0: float, u1: float, v0: float, v1: float, colour: RGB) -> None:
        fill((scene.at(u0, v0), scene.at(u1, v0), scene.at(u1, v1), scene.at(u0, v1)), colour)

    edge = PAINTS.get(region.edge)
    if edge is not None:
        lane(-400.0, 400.0, -ROAD_HALF - 2.0, ROAD_HALF + 2.0, edge)
    lane(-400.0, 400.0, -ROAD_HALF, ROAD_HALF, scene.road_colour)
    for v in (-3.4, 3.4):
        lane(-400.0, 400.0, v - 0.8, v + 0.8, lit(scene.road_colour, 0.93))
    colour = LINE_COLOURS[region.line_colour]
    if region.line == "dashed":
        for k in range(-14, 14):
            lane(14.0 * k + 3.0, 14.0 * k + 10.0, -0.6, 0.6, colour)
    elif region.line == "solid":
        lane(-400.0, 400.0, -0.6, 0.6, colour)
    elif region.line == "double":
        lane(-400.0, 400.0, -1.5, -0.6, colour)
        lane(-400.0, 400.0, 0.6, 1.5, colour)
    if scene.roundabout:
        if edge is not None:
            fill(_ring(scene.roundabout, ROAD_HALF + 16.0), edge)
        fill(_ring(scene.roundabout, ROAD_HALF + 14.0), scene.road_colour)
        fill(_ring(scene.roundabout, 10.0), scene.foliage)
        fill(_ring(scene.roundabout, 4.0), post_paint(scene))


def _things(draw: ImageDraw.ImageDraw, camera: Camera, scene: Scene) -> None:
    pen = SidePen(draw)
    seen: list[tuple[float, float, Thing]] = []
    for thing in scene.things:
        side, depth = camera.turn(thing.x, thing.y)
        if depth > 5.0 and abs(side) < 1.6 * depth + 40.0:
            seen.append((depth, side, thing))
    seen.sort(key=lambda row: -row[0])
    foliage = tree_colour(scene.place.region.tree, scene.foliage)
    for depth, side, thing in seen:
        pen.move(camera, side, depth, _SWELL.get(thing.kind, 1.35))
        if thing.kind == "tree":
            pen.disc(0.15 * thing.size, 0, 0.34 * thing.size, lit(scene.ground, 0.62), 0.07 * thing.size)
            tree_side(pen, scene.place.region.tree, thing.size, foliage)
        elif thing.kind == "house":
            house_side(pen, thing.size, thing.turn, scene.roof, scene.wall)
        elif thing.kind == "post":
            _post(pen, scene)
        elif thing.kind == "sign":
            _sign(pen, scene)
        else:
            SIDES[thing.kind](pen)


def _post(pen: SidePen, scene: Scene) -> None:
    kind, paint = scene.place.region.post, post_paint(scene)
    wood: RGB = (104, 78, 56)
    if kind == "bollard":
        pen.box(-0.7, 0, 0.7, 3.4, (240, 240, 236))
        pen.box(-0.7, 2.0, 0.7, 3.0, paint)
    elif kind == "pole":
        pen.box(-0.35, 0, 0.35, 10, wood)
        pen.box(-0.6, 2.2, 0.6, 5.0, paint)
    elif kind == "crossbar":
        pen.box(-0.35, 0, 0.35, 11, wood)
        pen.box(-2.6, 9.2, 2.6, 10.0, paint)
        pen.box(-2.0, 7.4, 2.0, 8.1, paint)
    elif kind == "lattice":
        for x in (-1.2, 1.2):
            pen.line(x, 0, x * 0.4, 11, 0.4, paint)
        for h in (2.0, 5.0, 8.0):
            pen.line(-1.1, h, 1.0, h + 2.4, 0.35, paint)
    else:
        pen.box(-0.3, 0, 0.3, 9, paint)
        pen.line(0, 9, 3.0, 9.6, 0.5, paint)
        pen.disc(3.2, 9.3, 0.9, (255, 246, 190))


def _sign(pen: SidePen, scene: Scene) -> None:
    region = scene.place.region
    a, b = (PAINTS[c] for c in region.flag_colours)
    pen.box(-0.4, 0, 0.4, 5, (120, 120, 124))
    x0, x1, y0, y1 = -3.6, 3.6, 3.0, 7.8
    pen.box(x0 - 0.3, y0 - 0.3, x1 + 0.3, y1 + 0.3, (40, 40, 44))
    pen.box(x0, y0, x1, y1, a)
    if region.flag == FLAGS[0]:
        pen.box(0, y0, x1, y1, b)
    elif region.flag == FLAGS[1]:
        pen.box(x0, y0, x1, (y0 + y1) / 2, b)
    elif region.flag == FLAGS[2]:
        pen.box(-0.9, y0, 0.9, y1, b)
        pen.box(x0, 4.6, x1, 6.2, b)
    else:
        pen.poly(((x0, y0), (x1, y0), (x1, y1)), b)


def _grain(image: Image.Image, place: Place, camera: Camera) -> None:
    """Roughen the ground: grain squeezed towards the horizon."""
    fine, _ = grain_sheets(place.seed)
    width = image.width
    top = int(camera.horizon) + 1
    x, y = place.key % (SHEET - 256), (place.key >> 12) % (SHEET - 256)
    bands = ((0.0, 0.12, 220, 40), (0.12, 0.4, 160, 60), (0.4, 1.0, 80, 90))
    for low, high, across, deep in bands:
        y0, y1 = top + int(low * (width - top)), top + int(high * (width - top))
        # only ever enlarged: shrinking rounds differently between versions of Pillow
        grain = fine.crop((x, y, x + min(across, width), y + min(deep, y1 - y0)))
        crop = grain.resize((width, y1 - y0), Image.Resampling.BILINEAR)
        area = image.crop((0, y0, width, y1))
        image.paste(ImageChops.add(area, crop, 1.0, -128), (0, y0))
