"""Trees and houses, from above and from the road, with the pens of `landmarks`."""

from edgegeo.planet.landmarks import DARK
from edgegeo.planet.palette import RGB, lit, mix
from edgegeo.planet.pen import Pen, TopPen

_TREE_TINT: dict[str, tuple[RGB, float]] = {  # own colour, and how much the land's foliage tints it
    "pine": ((16, 74, 52), 0.35),
    "oak": ((52, 124, 44), 0.5),
    "palm": ((70, 150, 54), 0.4),
    "poplar": ((92, 150, 60), 0.5),
    "cactus": ((44, 130, 84), 0.3),
    "acacia": ((140, 150, 60), 0.45),
    "cherry": ((244, 150, 186), 0.1),
    "birch": ((208, 190, 70), 0.35),
}
BARK: RGB = (92, 66, 46)
_FRONDS = ((0.5, -0.1), (0.38, 0.16), (0.1, 0.26), (-0.22, 0.2), (-0.42, -0.06), (-0.3, -0.26), (0.36, -0.28))


def tree_colour(kind: str, foliage: RGB) -> RGB:
    """The crown colour of a species where the land's foliage has the given tint."""
    own, tint = _TREE_TINT[kind]
    return mix(own, foliage, tint)


def tree_top(p: TopPen, kind: str, size: float, colour: RGB) -> None:
    """A tree of the given height (m) from above."""
    r = 0.42 * size
    if kind == "palm":
        p.shade_disc(0, 0, 0.6 * r, size)
        for dx, dy in ((1.0, 0.3), (0.4, 1.0), (-0.7, 0.8), (-1.0, -0.3), (-0.3, -1.0), (0.8, -0.7)):
            p.line(0, 0, dx * r * 1.2, dy * r * 1.2, 2.2, colour)
        return
    if kind == "cactus":
        p.shade_disc(0, 0, 0.3 * r, size)
        p.line(-0.6 * r, 0, 0.6 * r, 0, 2.4, colour)
        p.disc(0, 0, 0.45 * r, colour)
        return
    r *= {"poplar": 0.62, "pine": 0.85, "acacia": 1.2}.get(kind, 1.0)
    p.shade_disc(0, 0, r, size * 0.6)
    p.disc(0, 0, r, lit(colour, 0.82))
    if kind == "pine":
        p.disc(-0.1 * r, 0.1 * r, 0.35 * r, lit(colour, 1.35))
    else:
        p.disc(-0.2 * r, 0.2 * r, 0.66 * r, lit(colour, 1.14))


def tree_side(p: Pen, kind: str, size: float, colour: RGB) -> None:
    """A tree of the given height (m) from the side."""
    s = size
    dark, light = lit(colour, 0.78), lit(colour, 1.15)
    if kind == "pine":
        p.box(-0.05 * s, 0, 0.05 * s, 0.2 * s, BARK)
        for base, width in ((0.14, 0.36), (0.4, 0.28), (0.66, 0.19)):
            p.poly(((-width * s, base * s), (width * s, base * s), (0, (base + 0.42) * s)), colour)
            p.poly(((0.2 * width * s, base * s), (width * s, base * s), (0, (base + 0.42) * s)), dark)
    elif kind == "palm":
        p.line(0, 0, 0.08 * s, 0.8 * s, 0.09 * s, (140, 108, 72))
        for dx, dy in _FRONDS:
            p.line(0.08 * s, 0.8 * s, (0.08 + dx) * s, (0.8 + dy) * s, 0.1 * s, colour if dy > -0.1 else dark)
    elif kind == "cactus":
        p.box(-0.09 * s, 0, 0.09 * s, 0.85 * s, colour)
        p.disc(0, 0.85 * s, 0.09 * s, colour)
        p.box(-0.34 * s, 0.3 * s, 0, 0.4 * s, colour)
        p.box(-0.34 * s, 0.3 * s, -0.22 * s, 0.66 * s, colour)
        p.box(0, 0.44 * s, 0.32 * s, 0.54 * s, dark)
        p.box(0.2 * s, 0.44 * s, 0.32 * s, 0.76 * s, dark)
    elif kind == "poplar":
        p.box(-0.04 * s, 0, 0.04 * s, 0.3 * s, BARK)
        p.disc(0, 0.72 * s, 0.17 * s, colour, 0.58 * s)
        p.disc(0.06 * s, 0.68 * s, 0.09 * s, dark, 0.5 * s)
    elif kind == "acacia":
        p.line(0, 0, 0, 0.4 * s, 0.09 * s, BARK)
        p.line(0, 0.35 * s, -0.3 * s, 0.62 * s, 0.06 * s, BARK)
        p.line(0, 0.35 * s, 0.3 * s, 0.62 * s, 0.06 * s, BARK)
        p.disc(0, 0.7 * s, 0.62 * s, colour, 0.16 * s)
        p.disc(0, 0.66 * s, 0.5 * s, dark, 0.09 * s)
    else:
        _round_tree(p, kind, s, (colour, dark, light))


def _round_tree(p: Pen, kind: str, s: float, shades: tuple[RGB, RGB, RGB]) -> None:
    colour, dark, light = shades
    trunk = (236, 234, 226) if kind == "birch" else BARK
    p.box(-0.06 * s, 0, 0.06 * s, 0.5 * s, trunk)
    if kind == "birch":
        for h in (0.1, 0.22, 0.33):
            p.box(-0.06 * s, h * s, 0.02 * s, (h + 0.04) * s, DARK)
        p.disc(0, 0.68 * s, 0.26 * s, colour, 0.36 * s)
        p.disc(0.08 * s, 0.6 * s, 0.15 * s, dark, 0.24 * s)
        return
    p.disc(0, 0.66 * s, 0.4 * s, colour, 0.34 * s)
    p.disc(0.14 * s, 0.56 * s, 0.26 * s, dark, 0.2 * s)
    p.disc(-0.14 * s, 0.76 * s, 0.2 * s, light, 0.15 * s)


def house_top(p: TopPen, size: float, turn: int, roof: RGB) -> None:
    """A gabled house `size` m long from above; `turn` 1 puts the ridge north-south."""
    a, b = 0.5 * size, 0.36 * size
    if turn:
        p.shade_box(-b, -a, b, a, 9)
        p.box(-b, -a, 0, a, lit(roof, 1.08))
        p.box(0, -a, b, a, lit(roof, 0.76))
    else:
        p.shade_box(-a, -b, a, b, 9)
        p.box(-a, 0, a, b, lit(roof, 0.8))
        p.box(-a, -b, a, 0, lit(roof, 1.08))


def house_side(p: Pen, size: float, turn: int, roof: RGB, wall: RGB) -> None:
    """The same house from the road: its gable or its long side."""
    if turn:
        a = 0.38 * size
        p.box(-a, 0, a, 8, wall)
        p.poly(((-a, 8), (a, 8), (0, 16)), wall)
        p.line(-a * 1.15, 7.4, 0, 16.5, 2.4, roof)
        p.line(0, 16.5, a * 1.15, 7.4, 2.4, roof)
        p.box(-1.6, 0, 1.6, 5, (96, 66, 48))
        p.box(-1.6, 8, 1.6, 11, (72, 86, 110))
        return
    a = 0.5 * size
    p.box(-a, 0, a, 8, wall)
    p.poly(((-a * 1.12, 7.6), (a * 1.12, 7.6), (a * 0.9, 16), (-a * 0.9, 16)), roof)
    p.box(0.5 * a, 13, 0.7 * a, 19, (120, 80, 66))
    p.box(-1.5, 0, 1.5, 5.4, (96, 66, 48))
    for x in (-0.7, 0.42):
        p.box(x * a, 2.8, (x + 0.3) * a, 5.8, (72, 86, 110))
