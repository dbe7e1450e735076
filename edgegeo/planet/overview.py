"""Maps of the whole planet."""

import numpy as np
from PIL import Image

from edgegeo.planet.noise import Floats
from edgegeo.planet.palette import COVER, RGB, SNOW, SOIL_PATH, VEGETATION_PATH
from edgegeo.planet.world import World, biome_of


def render_overview(world: World, width: int, borders: bool = True) -> Image.Image:
    """Land and sea in their natural colours, equirectangular, with region borders where they are wanted."""
    table, region = world.grid()
    table, region = table[:-1], region[:-1]
    height, warm, wet, relief = (table[..., k] for k in range(4))
    biome_names = np.array([[biome_of((i + 0.5) / 64, (j + 0.5) / 64) for j in range(64)] for i in range(64)])
    biome = biome_names[np.minimum((warm * 64).astype(int), 63), np.minimum((wet * 64).astype(int), 63)]
    soil, plants = _path(SOIL_PATH, table[..., 4]), _path(VEGETATION_PATH, table[..., 5])
    cover = np.vectorize(COVER.get, otypes=[float])(biome)[..., None]
    snow = np.vectorize(lambda name: SNOW.get(name, 0.0), otypes=[float])(biome)[..., None]
    colour = (soil * (1 - cover) + plants * cover) * (1 - snow) + np.array([246.0, 248.0, 252.0]) * snow
    slope = np.zeros_like(height)
    slope[1:, 1:] = (height[1:, 1:] - height[:-1, :-1]) * 9.0
    colour = colour * np.clip(1.0 + slope + 0.15 * (relief - 0.5), 0.6, 1.35)[..., None]
    if borders:
        border = np.zeros(region.shape, bool)
        border[1:] |= region[1:] != region[:-1]
        border[:, 1:] |= region[:, 1:] != region[:, :-1]
        colour[border] = colour[border] * 0.55
    sea = _path(((96, 176, 206), (38, 104, 172), (18, 56, 120)), np.clip(-height * 1.2, 0.0, 1.0))
    colour = np.where((height > 0)[..., None], colour, sea)
    image = Image.fromarray(np.clip(np.round(colour), 0, 255).astype(np.uint8))
    return image.resize((width, width // 2), Image.Resampling.BICUBIC)


def _path(path: tuple[RGB, ...], t: Floats) -> Floats:
    knots = np.linspace(0.0, 1.0, len(path))
    return np.stack([np.interp(t, knots, [float(c[k]) for c in path]) for k in range(3)], axis=-1)
