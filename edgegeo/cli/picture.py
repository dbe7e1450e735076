"""The answer as one picture: the question, the world with answer and truth on it, and the best tiles."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw, ImageFont

from edgegeo.geo import Position

WIDTH, PAD, SIDE = 1280, 20, 400
MAP = (2 * SIDE, SIDE)
PAPER, INK, SOFT = (20, 23, 27), (232, 230, 224), (150, 156, 164)
ANSWER, TRUTH, TILE = (244, 96, 76), (92, 208, 150), (250, 206, 92)


@dataclass(frozen=True)
class PictureTile:
    """One found tile: its picture (if the gallery keeps it), place and one line of text."""

    image: Image.Image | None
    position: Position
    caption: str
    right: bool = False
    """It is the tile of the very place the photo was taken."""


@dataclass(frozen=True)
class PictureFacts:
    """Everything the picture shows."""

    title: str
    footer: str
    photo: Image.Image | None = None
    text: str | None = None
    answer: Position | None = None
    truth: Position | None = None
    world: Image.Image | None = None
    """Equirectangular map; None draws a bare grid of meridians and parallels."""
    tiles: Sequence[PictureTile] = field(default=())


def draw_answer(facts: PictureFacts) -> Image.Image:
    """An RGB picture, 1280 pixels wide; its height depends on whether there are tiles."""
    shown = list(facts.tiles)[:6]
    side = (WIDTH - 2 * PAD - 5 * 12) // 6
    height = 64 + SIDE + (side + 62 if shown else 0) + 48
    sheet = Image.new("RGB", (WIDTH, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((PAD, 18), facts.title, INK, _font(24))
    _question(sheet, draw, facts)
    left = WIDTH - PAD - MAP[0]
    sheet.paste(_map(facts, shown), (left, 64))
    for i, tile in enumerate(shown):
        x, y = PAD + i * (side + 12), 64 + SIDE + 20
        if tile.image is not None:
            sheet.paste(tile.image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS), (x, y))
        if tile.right:
            draw.rectangle((x - 4, y - 4, x + side + 3, y + side + 3), outline=TRUTH, width=4)
        _badge(draw, x + 14, y + 14, str(i + 1))
        draw.text((x, y + side + 6), tile.caption, SOFT, _font(14))
    draw.text((PAD, height - 32), facts.footer, SOFT, _font(14))
    return sheet


def _question(sheet: Image.Image, draw: ImageDraw.ImageDraw, facts: PictureFacts) -> None:
    side = min(SIDE, WIDTH - 3 * PAD - MAP[0])
    if facts.photo is not None:
        photo = facts.photo.convert("RGB")
        photo.thumbnail((side, SIDE), Image.Resampling.LANCZOS)
        if max(photo.size) < side:  # a small photo is shown as large as the others
            scale = side / max(photo.size)
            photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.LANCZOS)
        sheet.paste(photo, (PAD, 64))
    if facts.text is not None:
        top = 64 if facts.photo is None else SIDE - 20
        lines = textwrap.wrap(facts.text, 40)[: 14 if facts.photo is None else 2]
        draw.multiline_text((PAD, top), "\n".join(lines), INK, _font(18), spacing=8)


def _map(facts: PictureFacts, tiles: Sequence[PictureTile]) -> Image.Image:
    if facts.world is not None:
        world = facts.world.convert("RGB").resize(MAP, Image.Resampling.LANCZOS)
    else:
        world = Image.new("RGB", MAP, (32, 38, 46))
    draw = ImageDraw.Draw(world, "RGBA")
    for degrees in range(-150, 180, 30):
        x, _ = _pixel(Position(0, degrees))
        draw.line((x, 0, x, MAP[1]), (255, 255, 255, 36))
    for degrees in range(-60, 90, 30):
        _, y = _pixel(Position(degrees, 0))
        draw.line((0, y, MAP[0], y), (255, 255, 255, 36))
    for i, tile in reversed(list(enumerate(tiles))):
        _badge(draw, *_pixel(tile.position), str(i + 1))
    if facts.truth is not None:
        x, y = _pixel(facts.truth)
        draw.ellipse((x - 11, y - 11, x + 11, y + 11), outline=(0, 0, 0, 160), width=6)
        draw.ellipse((x - 10, y - 10, x + 10, y + 10), outline=TRUTH, width=4)
    if facts.answer is not None:
        x, y = _pixel(facts.answer)
        for colour, width in (((0, 0, 0, 160), 8), (ANSWER, 4)):
            draw.line((x - 12, y, x + 12, y), colour, width)
            draw.line((x, y - 12, x, y + 12), colour, width)
    _legend(draw, facts)
    return world


def _legend(draw: ImageDraw.ImageDraw, facts: PictureFacts) -> None:
    entries = [("+ answer", ANSWER)] if facts.answer else []
    entries += [("o truth (EXIF)", TRUTH)] if facts.truth else []
    entries += [(f"1-{min(6, len(facts.tiles))} tiles", TILE)] if facts.tiles else []
    width = sum(round(draw.textlength(text, _font(15))) + 18 for text, _ in entries) + 8
    if entries:
        draw.rectangle((8, MAP[1] - 34, 8 + width, MAP[1] - 8), (10, 12, 15, 200))
    x = 18
    for text, colour in entries:
        draw.text((x, MAP[1] - 30), text, colour, _font(15))
        x += round(draw.textlength(text, _font(15))) + 18


def _badge(draw: ImageDraw.ImageDraw, x: float, y: float, text: str) -> None:
    draw.ellipse((x - 10, y - 10, x + 10, y + 10), fill=TILE, outline=(0, 0, 0), width=1)
    draw.text((x, y), text, (0, 0, 0), _font(14), anchor="mm")


def _pixel(position: Position) -> tuple[float, float]:
    return (position.lon + 180) / 360 * MAP[0], (90 - position.lat) / 180 * MAP[1]


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
