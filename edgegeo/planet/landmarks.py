"""The landmarks and other upright things, each drawn twice: from above and from the road.

A drawer from above gets a `TopPen` whose origin is the thing's middle; a drawer from the side gets a `Pen` whose origin
is on the ground below it. Sizes fit a circle of 20 m radius.
"""

from collections.abc import Callable

from edgegeo.planet.palette import RGB, lit
from edgegeo.planet.pen import Pen, TopPen

GREY: RGB = (150, 150, 152)
DARK: RGB = (60, 60, 66)
WHITE: RGB = (246, 246, 246)
STEEL: RGB = (196, 204, 212)
RED: RGB = (214, 44, 40)
PANEL: RGB = (26, 38, 96)
BRICK: RGB = (150, 74, 58)
STONE: RGB = (168, 160, 146)
GLASS: RGB = (206, 240, 226)
AZURE: RGB = (40, 140, 220)


def _water_tower_top(p: TopPen) -> None:
    p.shade_disc(0, 0, 13, 30)
    p.disc(0, 0, 15, WHITE)
    p.disc(0, 0, 11, AZURE)
    p.disc(0, 0, 4, WHITE)


def _water_tower_side(p: Pen) -> None:
    for x in (-7.0, 7.0):
        p.line(x * 1.3, 0, x * 0.8, 26, 1.6, DARK)
    p.box(-2, 0, 2, 26, STEEL)
    p.disc(0, 34, 14, AZURE, 10)
    p.box(-14, 32, 14, 36, WHITE)


def _church_top(p: TopPen) -> None:
    p.shade_box(-7, -18, 7, 16, 14)
    p.shade_box(-6, 10, 6, 22, 34)
    p.box(-7, -18, 7, 16, (110, 60, 60))
    p.box(-16, -6, 16, 4, (130, 70, 68))
    p.line(0, -18, 0, 16, 1.5, (80, 44, 46))
    p.box(-6, 10, 6, 22, WHITE)
    p.poly(((-6, 10), (6, 10), (0, 16)), (90, 100, 130))


def _church_side(p: Pen) -> None:
    p.box(-4, 0, 22, 14, WHITE)
    p.poly(((-5, 14), (23, 14), (18, 24), (0, 24)), (120, 64, 64))
    p.box(-14, 0, -3, 28, WHITE)
    p.poly(((-15.5, 28), (-1.5, 28), (-8.5, 50)), (90, 100, 130))
    p.box(-10.5, 16, -6.5, 23, DARK)
    for x in (2.0, 9.0, 16.0):
        p.box(x, 4, x + 3, 10, (90, 110, 150))


def _stadium_top(p: TopPen) -> None:
    p.shade_disc(0, 0, 20, 12)
    p.disc(0, 0, 24, (214, 214, 220), 19)
    p.disc(0, 0, 19, (226, 92, 40), 14)
    p.disc(0, 0, 14.5, (60, 170, 70), 10)
    p.line(0, -10, 0, 10, 1.2, WHITE)


def _stadium_side(p: Pen) -> None:
    p.poly(((-30, 0), (30, 0), (34, 15), (-34, 15)), (214, 214, 220))
    p.disc(0, 15, 34, (226, 92, 40), 4)
    for x in (-28.0, -10.0, 10.0, 28.0):
        p.line(x, 0, x * 1.15, 15, 1.2, GREY)
    for x in (-30.0, 30.0):
        p.line(x, 12, x, 34, 1.4, DARK)
        p.box(x - 5, 31, x + 5, 37, (255, 252, 214))


def _turbines_top(p: TopPen) -> None:
    for x, y in ((-14.0, -12.0), (14.0, -8.0), (0.0, 14.0)):
        p.shade_disc(x, y, 3.0, 38)
        p.disc(x, y, 5, STEEL)
        p.line(x - 13, y - 4, x + 13, y + 4, 2.6, WHITE)
        p.line(x, y, x - 4, y + 13, 2.6, WHITE)
        p.disc(x, y, 3, WHITE)


def _turbines_side(p: Pen) -> None:
    for x, h in ((-22.0, 40.0), (0.0, 48.0), (22.0, 42.0)):
        p.poly(((x - 1.6, 0), (x + 1.6, 0), (x + 0.8, h), (x - 0.8, h)), WHITE)
        for dx, dy in ((0.0, 16.0), (14.0, -8.0), (-14.0, -8.0)):
            p.line(x, h, x + dx, h + dy, 1.9, WHITE)
        p.disc(x, h, 2.2, GREY)


def _solar_top(p: TopPen) -> None:
    p.box(-22, -20, 22, 20, (150, 156, 140))
    for k in range(5):
        y = -19.0 + 8.0 * k
        p.box(-21, y, 21, y + 6, PANEL)
        p.line(-21, y + 3, 21, y + 3, 0.8, (96, 124, 206))
    for x in (-7.0, 7.0):
        p.box(x - 0.8, -20, x + 0.8, 20, (150, 156, 140))


def _solar_side(p: Pen) -> None:
    for h in (7.0, 0.5):
        for k in range(6):
            x = -36.0 + 12.0 * k
            p.poly(((x, h + 2), (x + 10.5, h + 2), (x + 12.0, h + 9), (x + 1.5, h + 9)), PANEL)
            p.line(x + 1, h + 5.5, x + 11, h + 5.5, 0.7, (110, 140, 226))


def _silos_top(p: TopPen) -> None:
    for x, y in ((-12.0, 10.0), (12.0, 10.0), (-12.0, -12.0), (12.0, -12.0)):
        p.shade_disc(x, y, 9, 26)
        p.disc(x, y, 10, STEEL)
        p.disc(x - 1.5, y + 1.5, 6.5, WHITE)
        p.disc(x, y, 2.5, (206, 60, 50))


def _silos_side(p: Pen) -> None:
    for x in (-22.0, 0.0, 22.0):
        p.box(x - 9, 0, x + 9, 28, STEEL)
        p.box(x - 9, 0, x - 5, 28, WHITE)
        p.box(x + 5, 0, x + 9, 28, (150, 158, 168))
        p.poly(((x - 9.5, 28), (x + 9.5, 28), (x, 36)), (206, 60, 50))


def _mast_top(p: TopPen) -> None:
    p.shade_box(-1.5, -1.5, 1.5, 1.5, 50)
    p.box(-14, -14, 14, 14, (120, 120, 126))
    for dx, dy in ((-18.0, -18.0), (18.0, -18.0), (0.0, 22.0)):
        p.line(0, 0, dx, dy, 1.4, WHITE)
    p.box(-6, -6, 6, 6, RED)
    p.box(-2.5, -2.5, 2.5, 2.5, WHITE)


def _mast_side(p: Pen) -> None:
    p.line(0, 52, -20, 0, 0.8, (220, 220, 224))
    p.line(0, 52, 20, 0, 0.8, (220, 220, 224))
    for k in range(8):
        w = 4.2 - 0.4 * k
        p.box(-w, 7.5 * k, w, 7.5 * k + 7.5, RED if k % 2 == 0 else WHITE)
    p.line(0, 58, 0, 68, 1.0, RED)


def _lighthouse_top(p: TopPen) -> None:
    p.shade_disc(0, 0, 8, 34)
    p.box(-16, -16, 2, 2, WHITE)
    p.disc(0, 0, 12, RED)
    p.disc(0, 0, 8, WHITE)
    p.disc(0, 0, 4, (255, 222, 60))


def _lighthouse_side(p: Pen) -> None:
    p.box(-20, 0, -5, 10, WHITE)
    p.poly(((-22, 10), (-3, 10), (-12, 17)), RED)
    for k in range(5):
        w, w2 = 8.0 - 0.9 * k, 7.1 - 0.9 * k
        p.poly(((-w, 8 * k), (w, 8 * k), (w2, 8 * k + 8), (-w2, 8 * k + 8)), RED if k % 2 else WHITE)
    p.box(-6, 40, 6, 42, DARK)
    p.box(-3.4, 42, 3.4, 48, (255, 226, 80))
    p.poly(((-5, 48), (5, 48), (0, 54)), RED)


def _quarry_top(p: TopPen) -> None:
    p.disc(0, 0, 25, (206, 194, 176), 22)
    p.disc(1, -1, 19, (168, 152, 134), 16)
    p.disc(2, -2, 13, (122, 108, 96), 10.5)
    p.disc(3, -3, 6.5, (40, 176, 170), 5)
    p.line(-22, 4, -6, -2, 2.4, (226, 216, 200))


def _quarry_side(p: Pen) -> None:
    p.poly(((-38, 0), (-32, 14), (-20, 17), (-14, 25), (10, 27), (16, 18), (30, 16), (38, 0)), (206, 194, 176))
    p.poly(((-30, 0), (-26, 9), (-12, 11), (-8, 18), (8, 19), (12, 11), (26, 9), (30, 0)), (152, 136, 120))
    p.box(-20, 0, 20, 6, (112, 98, 88))
    p.line(22, 0, 34, 30, 2.0, (246, 190, 30))
    p.line(34, 30, 44, 22, 1.6, (246, 190, 30))


def _greenhouses_top(p: TopPen) -> None:
    for k in range(4):
        x = -22.0 + 11.5 * k
        p.shade_box(x, -18, x + 9, 18, 6)
        p.box(x, -18, x + 9, 18, GLASS)
        p.line(x + 4.5, -18, x + 4.5, 18, 1.2, (110, 200, 160))
        p.box(x, -18, x + 1.4, 18, WHITE)


def _greenhouses_side(p: Pen) -> None:
    for k in range(4):
        x = -34.0 + 17.0 * k
        p.poly(((x, 0), (x + 16, 0), (x + 16, 9), (x + 8, 15), (x, 9)), GLASS)
        p.line(x, 9, x + 8, 15, 1.0, WHITE)
        p.line(x + 8, 15, x + 16, 9, 1.0, WHITE)
        p.box(x + 1, 1, x + 15, 4, (80, 176, 96))
        p.line(x, 0, x, 9, 1.0, WHITE)


def _factory_top(p: TopPen) -> None:
    p.shade_box(-20, -18, 20, 10, 14)
    p.box(-20, -18, 20, 10, BRICK)
    for k in range(4):
        x = -20.0 + 10.0 * k
        p.box(x, -18, x + 4, 10, (206, 200, 196))
    p.shade_disc(12, 16, 4, 44)
    p.disc(12, 16, 6, (96, 48, 40))
    p.disc(12, 16, 3, DARK)
    p.disc(16, 22, 6, (228, 228, 230))


def _factory_side(p: Pen) -> None:
    p.box(-28, 0, 16, 15, BRICK)
    for k in range(4):
        x = -28.0 + 11.0 * k
        p.poly(((x, 15), (x + 11, 15), (x, 22)), (206, 200, 196))
        p.box(x + 2, 5, x + 8, 10, (70, 80, 100))
    p.poly(((17, 0), (26, 0), (24.5, 48), (18.5, 48)), (120, 58, 46))
    p.box(18, 40, 25, 44, WHITE)
    for x, h, r in ((24.0, 53.0, 5.0), (31.0, 58.0, 7.0), (40.0, 62.0, 8.0)):
        p.disc(x, h, r, (228, 228, 230))


def _castle_top(p: TopPen) -> None:
    p.shade_box(-18, -18, 18, 18, 16)
    p.box(-18, -18, 18, 18, STONE)
    p.box(-11, -11, 11, 11, (112, 132, 86))
    p.shade_box(-6, -6, 6, 6, 26)
    p.box(-6, -6, 6, 6, (128, 120, 108))
    for x in (-18.0, 18.0):
        for y in (-18.0, 18.0):
            p.disc(x, y, 6, (126, 118, 106))
            p.disc(x, y, 3.4, (62, 76, 130))


def _castle_side(p: Pen) -> None:
    p.box(-26, 0, 26, 18, STONE)
    for k in range(7):
        x = -25.0 + 7.4 * k
        p.box(x, 18, x + 4, 21, STONE)
    p.box(-8, 0, 8, 34, lit(STONE, 0.88))
    p.poly(((-9, 34), (9, 34), (0, 45)), (62, 76, 130))
    for x in (-26.0, 26.0):
        p.box(x - 6, 0, x + 6, 27, lit(STONE, 0.94))
        p.poly(((x - 7, 27), (x + 7, 27), (x, 40)), (62, 76, 130))
    p.disc(0, 4, 4, DARK)
    p.box(-4, 0, 4, 4, DARK)


def _airstrip_top(p: TopPen) -> None:
    p.box(-7, -30, 7, 30, (88, 90, 96))
    for k in range(6):
        p.box(-1, -27 + 10 * k, 1, -21 + 10 * k, WHITE)
    for x in (-6.0, 6.0):
        p.box(x - 0.7, -30, x + 0.7, 30, WHITE)
    p.shade_box(10, -12, 24, 6, 10)
    p.box(10, -12, 24, 6, (216, 120, 40))
    p.box(-20, -2, -9, 1, WHITE)
    p.box(-16, -8, -13, 7, WHITE)


def _airstrip_side(p: Pen) -> None:
    p.box(-44, 0, 44, 2.5, (88, 90, 96))
    p.disc(18, 2, 15, (216, 120, 40), 17)
    p.box(2, -1, 34, 2, (88, 90, 96))
    p.box(10, 2, 26, 11, DARK)
    p.poly(((-36, 5), (-8, 5), (-4, 14), (-8, 14), (-12, 9), (-34, 9)), WHITE)
    p.line(-26, 7, -16, 3, 2.0, GREY)
    p.line(-42, 0, -42, 22, 1.0, WHITE)
    p.poly(((-42, 22), (-42, 17), (-30, 18.5)), (250, 120, 30))


def _observatory_top(p: TopPen) -> None:
    p.shade_disc(0, 0, 15, 18)
    p.disc(0, 0, 20, (176, 170, 190))
    p.disc(0, 0, 15, WHITE)
    p.disc(-3, 3, 9, (224, 228, 240))
    p.box(-2, 0, 2, 15, (70, 50, 120))


def _observatory_side(p: Pen) -> None:
    p.disc(0, 18, 17, WHITE, 17)
    p.disc(-5, 22, 9, (226, 230, 242), 10)
    p.poly(((1, 34), (6, 33), (12, 16), (6, 16)), (70, 50, 120))
    p.box(-20, 0, 20, 15, (176, 170, 190))
    p.box(-20, 13, 20, 15, (120, 112, 140))
    p.box(-4, 0, 4, 9, (70, 50, 120))


TOPS: dict[str, Callable[[TopPen], None]] = {
    "water tower": _water_tower_top,
    "church": _church_top,
    "stadium": _stadium_top,
    "wind turbines": _turbines_top,
    "solar farm": _solar_top,
    "silos": _silos_top,
    "radio mast": _mast_top,
    "lighthouse": _lighthouse_top,
    "quarry": _quarry_top,
    "greenhouses": _greenhouses_top,
    "factory": _factory_top,
    "castle": _castle_top,
    "airstrip": _airstrip_top,
    "observatory": _observatory_top,
}
SIDES: dict[str, Callable[[Pen], None]] = {
    "water tower": _water_tower_side,
    "church": _church_side,
    "stadium": _stadium_side,
    "wind turbines": _turbines_side,
    "solar farm": _solar_side,
    "silos": _silos_side,
    "radio mast": _mast_side,
    "lighthouse": _lighthouse_side,
    "quarry": _quarry_side,
    "greenhouses": _greenhouses_side,
    "factory": _factory_side,
    "castle": _castle_side,
    "airstrip": _airstrip_side,
    "observatory": _observatory_side,
}
