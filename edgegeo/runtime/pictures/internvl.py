"""InternVL: one square, or a grid of square tiles whose shape is nearest to the picture's, then the whole once more."""

from functools import lru_cache

import numpy as np
from PIL import Image

from edgegeo.bundle import ImageSpec
from edgegeo.runtime.pictures import Layout, Picture, positions_of, whole_layout
from edgegeo.runtime.pictures.pixels import normalised


def prepare(image: Image.Image, spec: ImageSpec) -> Picture:
    """`GotOcr2ImageProcessorPil` of transformers 5.23, bit-equal: {"pixel_values": (tiles, 3, size, size)}.

    Split as with crop_to_patches, unless `spec.max_tiles` is 1. Tiles come row by row; a split picture also ends with
    itself as one tile where `spec.thumbnail` says so. No resampling keeps the aspect, and nothing is padded. In the
    prompt all tiles are one run of image tokens between one pair of marks.
    """
    columns, rows = _grid(image.width, image.height, spec.size, spec.min_tiles, spec.max_tiles)
    size, resample = spec.size, Image.Resampling(spec.resample)
    canvas = image.resize((columns * size, rows * size), resample)
    split = columns * rows > 1
    out = np.empty((columns * rows + (split and spec.thumbnail), 3, size, size), np.float32)
    for index in range(columns * rows):
        left, top = index % columns * size, index // columns * size
        normalised(canvas.crop((left, top, left + size, top + size)), spec, out[index])
    if split and spec.thumbnail:
        normalised(image.resize((size, size), resample), spec, out[-1])
    return Picture({"pixel_values": out}, _layout(spec, len(out)))


def most_positions(spec: ImageSpec) -> int:
    """Positions of one picture with its marks when it is split into as many tiles as allowed."""
    tiles = max(columns * rows for columns, rows in _grids(spec.min_tiles, spec.max_tiles))
    return positions_of(_layout(spec, tiles + (tiles > 1 and spec.thumbnail)))


def _layout(spec: ImageSpec, tiles: int) -> Layout:
    return tuple(part * tiles if isinstance(part, int) else part for part in whole_layout(spec))


@lru_cache(maxsize=8)
def _grids(min_tiles: int, max_tiles: int) -> tuple[tuple[int, int], ...]:
    """(columns, rows) of all allowed grids, fewest tiles first and then fewest columns; the order breaks ties."""
    sides = range(1, max_tiles + 1)
    grids = [(c, r) for c in sides for r in sides if min_tiles <= c * r <= max_tiles]
    return tuple(sorted(grids, key=lambda grid: grid[0] * grid[1])) or ((1, 1),)


def _grid(width: int, height: int, size: int, min_tiles: int, max_tiles: int) -> tuple[int, int]:
    """The grid whose aspect differs least from the picture's; of equals, the larger one while it is not wasteful."""
    if max_tiles == 1:
        return 1, 1
    best, least = (1, 1), float("inf")
    for columns, rows in _grids(min_tiles, max_tiles):
        difference = abs(width / height - columns / rows)
        # A tie goes to the grid with more tiles until the picture has no more than half its pixels.
        if difference < least or (difference == least and width * height > 0.5 * size * size * columns * rows):
            best, least = (columns, rows), difference
    return best
