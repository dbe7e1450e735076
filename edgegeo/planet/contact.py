"""A contact sheet: tile and photo side by side with their description, for a person to look at."""

import textwrap

from PIL import Image, ImageDraw

from edgegeo.planet.globe import Planet

_LINE = 12


def contact_sheet(
    planet: Planet, n: int = 12, columns: int = 2, size: int = 256, split: str = "validation", seed: int = 0
) -> Image.Image:
    """The first n places of a split: each a tile, a photo and a caption."""
    width, height = 2 * size + 12, size + 5 * _LINE
    rows = -(-n // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), (24, 26, 30))
    draw = ImageDraw.Draw(sheet)
    for k, place in enumerate(planet.places(split, n, seed)):
        x, y = (k % columns) * width, (k // columns) * height
        sheet.paste(planet.satellite(place.lat, place.lon, size), (x + 2, y + 2))
        sheet.paste(planet.ground(place.lat, place.lon, None, size), (x + size + 6, y + 2))
        where = f"{place.region.name}, {place.biome} ({place.lat:.2f}, {place.lon:.2f}), facing {place.heading:.0f}"
        lines = [where, *textwrap.wrap(planet.describe(place.lat, place.lon, k), int(width / 6.2))][:4]
        for i, line in enumerate(lines):
            draw.text((x + 4, y + size + 5 + i * _LINE), line, (250, 220, 120) if i == 0 else (230, 230, 230))
    return sheet
