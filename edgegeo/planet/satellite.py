"""The satellite tile: a place from above, north up, 320 m across."""

from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from edgegeo.planet.landmarks import TOPS
from edgegeo.planet.noise import Dice, grain_sheet, mix64
from edgegeo.planet.palette import AIR_PATH, LINE_COLOURS, PAINTS, RGB, along, lit, mix
from edgegeo.planet.pen import TopPen
from edgegeo.planet.place import Place
from edgegeo.planet.plants import house_top, tree_colour, tree_top
from edgegeo.planet.scene import (
    HALF,
    ROAD_HALF,
    VERGE_HALF,
    Patch,
    Point,
    Scene,
    Thing,
    build_scene,
    octant_point,
    post_paint,
)

SHEET = 1024


def render_satellite(place: Place, size: int) -> Image.Image:
    """The tile of a place, (size, size) RGB."""
    scale = 2.0 * size / (2.0 * HALF)
    if not place.land:
        return finish(_open_sea(place, size), place, size)
    scene = build_scene(place)
    image = Image.new("RGB", (2 * size, 2 * size), scene.ground)
    shade = _shade_vector(place)
    pen = TopPen(ImageDraw.Draw(image), scale, shade, lit(mix(scene.ground, (20, 26, 40), 0.62), 0.8))
    _draw_ground(pen, scene)
    _draw_roads(pen, scene)
    for thing in sorted(scene.things, key=lambda t: (t.kind == "post", -t.y)):
        _draw_thing(pen, scene, thing)
    return finish(image.reduce(2), place, size)


def _shade_vector(place: Place) -> Point:
    # the sun stands towards the equator: shadows point to the nearer pole, longer at high latitudes
    length = 0.35 + 0.6 * abs(place.lat) / 90.0
    return (0.3 * length, length if place.lat >= 0 else -length)


def _draw_ground(pen: TopPen, scene: Scene) -> None:
    hedge = scene.place.region.fields == "hedges"
    border = lit(scene.foliage, 0.6) if hedge else lit(mix(scene.soil, scene.ground, 0.5), 0.85)
    for patch in scene.patches:
        _draw_patch(pen, scene, patch, border, 3.4 if hedge else 1.4)
    for corners in scene.forest_floor:
        pen.poly(corners, lit(mix(scene.foliage, (20, 50, 30), 0.4), 0.7))
    if scene.place.water == "sea":
        pen.poly(scene.shore[0], mix((240, 222, 170), scene.soil, 0.3))
        pen.poly(scene.water[0], mix(scene.water_colour, (235, 245, 250), 0.5))
        fx, fy = octant_point(scene.place.water_octant, 1.0)
        for step, t in ((4.0, 0.22), (12.0, 0.0), (40.0, -0.12)):
            shade = mix(scene.water_colour, (90, 200, 210), t) if t >= 0 else lit(scene.water_colour, 1.0 + t)
            pen.poly(tuple((x + fx * step, y + fy * step) for x, y in scene.water[0]), shade)
        return
    for corners in scene.shore:
        pen.poly(corners, lit(mix(scene.soil, scene.foliage, 0.4), 0.75))
    for corners in scene.water:
        pen.poly(corners, scene.water_colour)
    if scene.place.water == "lake":
        (x0, y0), (x1, y1) = scene.water[0][0], scene.water[0][11]
        cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
        inner = tuple((cx + 0.72 * (x - cx), cy + 0.72 * (y - cy)) for x, y in scene.water[0])
        pen.poly(inner, lit(scene.water_colour, 0.84))


def _draw_patch(pen: TopPen, scene: Scene, patch: Patch, border: RGB, width: float) -> None:
    corners = patch.corners
    if min(abs(x) for x, _ in corners) > HALF * 1.4 and min(abs(y) for _, y in corners) > HALF * 1.4:
        return
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = corners
    if patch.circle:
        mx, my = (ax + cx) / 2, (ay + cy) / 2
        r = 0.47 * min(((bx - ax) ** 2 + (by - ay) ** 2) ** 0.5, ((dx - ax) ** 2 + (dy - ay) ** 2) ** 0.5)
        pen.poly(corners, mix(scene.ground, patch.colour, 0.25))
        pen.disc(mx, my, r, patch.colour)
        pen.line(mx, my, mx + 0.7 * r, my + 0.7 * r, 1.2, lit(patch.colour, 0.8))
        return
    pen.poly(corners, patch.colour)
    if patch.row_step:
        if not patch.rows_along:
            (ax, ay), (bx, by), (cx, cy), (dx, dy) = corners[1], corners[2], corners[3], corners[0]
        n = max(2, int(((dx - ax) ** 2 + (dy - ay) ** 2) ** 0.5 / patch.row_step))
        dark = lit(patch.colour, 0.86)
        for k in range(1, n):
            t = k / n
            pen.line(ax + (dx - ax) * t, ay + (dy - ay) * t, bx + (cx - bx) * t, by + (cy - by) * t, 1.8, dark)
    for (x0, y0), (x1, y1) in zip(corners, (*corners[1:], corners[0]), strict=True):
        pen.line(x0, y0, x1, y1, width, border)


def _draw_roads(pen: TopPen, scene: Scene) -> None:
    region = scene.place.region
    for (x0, y0), (x1, y1) in scene.roads:
        pen.line(x0, y0, x1, y1, 2 * VERGE_HALF if (x0, y0) == scene.at(-400.0, 0.0) else 22.0, scene.soil)
    if scene.roundabout:
        pen.disc(*scene.roundabout, 27.0, scene.soil)
    edge = PAINTS.get(region.edge)
    for width, colour in ((2 * ROAD_HALF + 4.0, edge), (2 * ROAD_HALF, scene.road_colour)):
        if colour is None:
            continue
        for (x0, y0), (x1, y1) in scene.roads:
            pen.line(x0, y0, x1, y1, width, colour)
        if scene.roundabout:
            pen.disc(*scene.roundabout, width / 2 + 14.0, colour)
    _draw_lines(pen, scene)
    if scene.roundabout:
        pen.disc(*scene.roundabout, 10.0, scene.foliage)
        pen.disc(*scene.roundabout, 4.0, post_paint(scene))


def _draw_lines(pen: TopPen, scene: Scene) -> None:
    region = scene.place.region
    if region.line == "none":
        return
    colour = LINE_COLOURS[region.line_colour]
    offsets = (-2.0, 2.0) if region.line == "double" else (0.0,)
    for v in offsets:
        if region.line == "dashed":
            for k in range(-12, 12):
                pen.line(*scene.at(20.0 * k, v), *scene.at(20.0 * k + 11.0, v), 2.2, colour)
        else:
            pen.line(*scene.at(-400.0, v), *scene.at(400.0, v), 2.0, colour)


def _draw_thing(pen: TopPen, scene: Scene, thing: Thing) -> None:
    pen.move(thing.x, thing.y)
    if thing.kind == "tree":
        tree_top(pen, scene.place.region.tree, thing.size, tree_colour(scene.place.region.tree, scene.foliage))
    elif thing.kind == "house":
        house_top(pen, thing.size, thing.turn, scene.roof)
    elif thing.kind == "post":
        pen.shade_disc(0, 0, 0.8, 8)
        pen.disc(0, 0, 2.2, post_paint(scene))
    elif thing.kind != "sign":
        TOPS[thing.kind](pen)


def _open_sea(place: Place, size: int) -> Image.Image:
    deep = mix((24, 70, 140), (10, 30, 80), min(1.0, -place.height))
    dice = Dice(place.seed, 500, place.key)
    image = Image.new("RGB", (size, size), deep)
    draw = ImageDraw.Draw(image)
    for _ in range(26):
        x, y, w = dice.span(0, size), dice.span(0, size), dice.span(0.02, 0.06) * size
        draw.line((x, y, x + w, y - 0.3 * w), lit(deep, 1.3), max(1, size // 128))
    return image


@lru_cache(maxsize=4)
def grain_sheets(seed: int) -> tuple[Image.Image, Image.Image]:
    """Fine and lumpy grain as RGB pictures around 128 (1024 x 1024), to be added to renders."""
    fine = grain_sheet(SHEET, 1, mix64(seed, 600)) * 4.0 + grain_sheet(SHEET, 3, mix64(seed, 601)) * 4.0
    lumps = grain_sheet(SHEET, 24, mix64(seed, 602)) * 5.0 + grain_sheet(SHEET, 9, mix64(seed, 603)) * 2.0
    return _sheet(fine), _sheet(lumps)


def _sheet(values: Any) -> Image.Image:
    grey = np.clip(np.round(values + 128.0), 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def finish(image: Image.Image, place: Place, size: int) -> Image.Image:
    """Add grain, relief and the light of the day."""
    fine, lumps = grain_sheets(place.seed)
    x, y = place.key % (SHEET - 256), (place.key >> 12) % (SHEET - 256)
    for sheet in (fine, lumps):
        crop = sheet.crop((x, y, x + 256, y + 256))
        if size != 256:
            crop = crop.resize((size, size), Image.Resampling.BILINEAR)
        image = ImageChops.add(image, crop, 1.0, -128)
    return image.point(light_table(place))


def light_table(place: Place) -> list[int]:
    """The lookup table (768) of a place's brightness, and of a haze in the colour of its air."""
    air = along(AIR_PATH, place.air)
    haze = 0.10 + place.haze
    table = []
    for channel in range(3):
        k, base = place.sun * (1.0 - haze), air[channel] * haze
        table += [min(255, int(v * k + base + 0.5)) for v in range(256)]
    return table
