"""Gemma 3: one resampling to a square, the aspect not kept; with pan and scan, long pictures also in pieces."""

import math

import numpy as np
from PIL import Image

from edgegeo.bundle import ImageSpec
from edgegeo.runtime.pictures import Instead, Layout, Picture, positions_of, whole_layout
from edgegeo.runtime.pictures.pixels import normalised


def prepare(image: Image.Image, spec: ImageSpec) -> Picture:
    """`Gemma3ImageProcessorPil` of transformers 5.23, bit-equal: {"pixel_values": (1 + crops, 3, size, size)}.

    The whole picture comes first. Pan and scan is on where `spec.max_tiles` is above 1, and cuts pictures from
    `spec.min_ratio` on into at most that many crops, none smaller than `spec.min_crop` pixels.
    """
    boxes = [(0, 0, *image.size), *crops(*image.size, spec)]
    out = np.empty((len(boxes), 3, spec.size, spec.size), np.float32)
    for index, box in enumerate(boxes):
        square = image.crop(box) if index else image
        normalised(square.resize((spec.size, spec.size), Image.Resampling(spec.resample)), spec, out[index])
    return Picture({"pixel_values": out}, _layout(spec, len(boxes) - 1))


def most_positions(spec: ImageSpec) -> int:
    """Positions of one picture with its marks and all the crops it may be cut into."""
    return positions_of(_layout(spec, spec.max_tiles if spec.max_tiles > 1 else 0))


def crops(width: int, height: int, spec: ImageSpec) -> list[tuple[int, int, int, int]]:
    """Boxes (left, top, right, bottom) of pan and scan: strips across the longer side; none for squarish pictures."""
    long, short = max(width, height), min(width, height)
    if spec.max_tiles < 2 or long / short < spec.min_ratio:
        return []
    count = min(long // spec.min_crop, math.floor(long / short + 0.5))
    count = min(spec.max_tiles, max(2, count))
    step = math.ceil(long / count)
    if min(step, short) < spec.min_crop:
        return []
    ends = [(at, min(at + step, long)) for at in range(0, step * count, step)]
    return [(a, 0, b, height) if width >= height else (0, a, width, b) for a, b in ends]


def _layout(spec: ImageSpec, count: int) -> Layout:
    """The words around the tiles of one picture.

    A picture alone stands between empty lines, which belong to the prompt's text (`Family.around_image`). One with
    crops begins with words, so the lines before it end where the prompt's own do.
    """
    if not count:
        return whole_layout(spec)
    lines = spec.marks["lines"]
    shorter: dict[int, tuple[int, ...]] = {lines[1]: ()}
    shorter.update({lines[n]: (lines[n - 2],) for n in range(2, len(lines))})
    first, then, next_, after = (np.array(spec.marks[name], np.int64) for name in ("whole", "crops", "crop", "after"))
    pieces: list[Instead | int | np.ndarray] = [Instead(shorter), first, spec.tokens, then, spec.tokens]
    for _ in range(count - 1):
        pieces += [next_, spec.tokens]
    return (*pieces, after)
