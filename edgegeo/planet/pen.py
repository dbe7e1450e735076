"""What the planet's pictures are drawn with: shapes in metres around an origin that moves from thing to thing."""

from PIL import ImageDraw

from edgegeo.planet.palette import RGB
from edgegeo.planet.scene import HALF, Point


class Pen:
    """x to the right and y up from the origin (`ox`, `oy`, in pixels), `scale` pixels a metre."""

    def __init__(self, draw: ImageDraw.ImageDraw, scale: float = 0.0) -> None:
        self.draw, self.scale = draw, scale
        self.ox = self.oy = 0.0

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: RGB) -> None:
        """The rectangle between two corners."""
        s = self.scale
        self.draw.rectangle((self.ox + x0 * s, self.oy - y1 * s, self.ox + x1 * s, self.oy - y0 * s), fill)

    def poly(self, points: tuple[Point, ...], fill: RGB) -> None:
        """The polygon of these corners."""
        s, ox, oy = self.scale, self.ox, self.oy
        self.draw.polygon([(ox + x * s, oy - y * s) for x, y in points], fill)

    def disc(self, x: float, y: float, r: float, fill: RGB, ry: float | None = None) -> None:
        """The disc around (x, y); an ellipse where `ry` is given."""
        s = self.scale
        px, py, rx, ry = self.ox + x * s, self.oy - y * s, r * s, (r if ry is None else ry) * s
        self.draw.ellipse((px - rx, py - ry, px + rx, py + ry), fill)

    def line(self, x0: float, y0: float, x1: float, y1: float, width: float, fill: RGB) -> None:
        """A line `width` metres wide, of one pixel at least."""
        s = self.scale
        ends = (self.ox + x0 * s, self.oy - y0 * s, self.ox + x1 * s, self.oy - y1 * s)
        self.draw.line(ends, fill, max(1, round(width * s)))


class TopPen(Pen):
    """Draws from above, x east and y north; also casts shadows: `shade` is that of one metre of height, in metres."""

    def __init__(self, draw: ImageDraw.ImageDraw, scale: float, shade: Point, shade_colour: RGB) -> None:
        super().__init__(draw, scale)
        self.shade, self.shade_colour = shade, shade_colour
        self.move(0.0, 0.0)

    def move(self, x: float, y: float) -> None:
        """Put the origin at (x, y) metres from the tile's middle."""
        self.ox, self.oy = (x + HALF) * self.scale, (HALF - y) * self.scale

    def shade_box(self, x0: float, y0: float, x1: float, y1: float, height: float) -> None:
        """The shadow of a box `height` metres high."""
        dx, dy = self.shade[0] * height, self.shade[1] * height
        low_x, high_x = (x0, x1) if dx * dy >= 0 else (x1, x0)
        self.poly(((low_x, y1), (low_x + dx, y1 + dy), (high_x + dx, y0 + dy), (high_x, y0)), self.shade_colour)
        self.box(x0 + dx, y0 + dy, x1 + dx, y1 + dy, self.shade_colour)

    def shade_disc(self, x: float, y: float, r: float, height: float) -> None:
        """The shadow of a cylinder `height` metres high."""
        dx, dy = self.shade[0] * height, self.shade[1] * height
        self.line(x, y, x + dx, y + dy, 2 * r, self.shade_colour)
        self.disc(x + dx, y + dy, r, self.shade_colour)
