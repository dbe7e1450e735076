"""Qwen2.5-VL: pictures at their own resolution, both sides a multiple of 28, and the windows its tower attends in."""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgegeo.bundle import ImageSpec
from edgegeo.errors import ImageError
from edgegeo.runtime.pictures import Picture
from edgegeo.runtime.pictures.pixels import normalised

MAX_ASPECT = 200
"""Longest over shortest side that the processor takes."""

Ints = NDArray[np.int64]


def prepare(image: Image.Image, spec: ImageSpec) -> Picture:
    """`Qwen2VLImageProcessorPil` of transformers 5.23, pixels bit-equal, and what its tower computes from the grid.

    | input | shape | |
    |---|---|---|
    | pixel_values | (patches, 3 * patch * patch) float32 | in the processor's order: blocks of merge x merge patches become one token; the frame it repeats for a still picture once |
    | patch_places | (patches, 2) int64 | row and column of each patch |
    | window_slots | (windows, n) int64 | the patches of each attention window, -1 where a window at the border is not full |
    | patch_slots | (patches,) int64 | where each patch stands in the flattened window_slots |
    """  # noqa: E501
    width, height = image.size
    wide, high = fitted(width, height, spec)
    resized = image if (wide, high) == image.size else image.resize((wide, high), Image.Resampling(spec.resample))
    rows, columns = high // spec.size, wide // spec.size
    merge, patch = spec.merge, spec.patch
    cells = normalised(resized, spec).reshape(3, rows, merge, patch, columns, merge, patch)
    patches = cells.transpose(1, 4, 2, 5, 0, 3, 6).reshape(rows * columns * merge**2, 3 * patch**2)
    before, after = (np.array(spec.marks.get(name, ()), np.int64) for name in ("before", "after"))
    return Picture(
        {"pixel_values": patches, **grid_inputs(rows, columns, spec)},
        tuple(part for part in (before, rows * columns, after) if isinstance(part, int) or len(part)),
        (rows, columns),
    )


def most_positions(spec: ImageSpec) -> int:
    """Most prompt positions of one picture with its marks, at any shape the processor takes."""
    most, least = spec.max_pixels / spec.size**2, spec.min_pixels / spec.size**2
    # A picture so long that its short side would be less than one token keeps one row, and so more than max_pixels;
    # one scaled up to min_pixels has both sides rounded up.
    long = math.sqrt(MAX_ASPECT * most)
    enlarged = (math.sqrt(MAX_ASPECT * least) + 1) * (math.sqrt(least / MAX_ASPECT) + 1)
    return int(max(most, long, enlarged)) + sum(len(ids) for ids in spec.marks.values())


def fitted(width: int, height: int, spec: ImageSpec) -> tuple[int, int]:
    """(width, height) that a picture is resized to: `smart_resize` of the processor, in its own order of roundings."""
    step = spec.size
    if max(width, height) / min(width, height) > MAX_ASPECT:
        raise ImageError(f"the picture has {width} x {height} pixels, longer than {MAX_ASPECT}:1; crop it to the scene")
    high, wide = round(height / step) * step, round(width / step) * step
    if high * wide > spec.max_pixels:
        shrink = math.sqrt((height * width) / spec.max_pixels)
        high = max(step, math.floor(height / shrink / step) * step)
        wide = max(step, math.floor(width / shrink / step) * step)
    elif high * wide < spec.min_pixels:
        grow = math.sqrt(spec.min_pixels / (height * width))
        high, wide = math.ceil(height * grow / step) * step, math.ceil(width * grow / step) * step
    return wide, high


def grid_inputs(rows: int, columns: int, spec: ImageSpec) -> dict[str, NDArray[Any]]:
    """The inputs of the tower that follow from the grid of image tokens alone (see `prepare`)."""
    return dict(_grid_inputs(rows, columns, spec.merge, spec.window // spec.size))


@lru_cache(maxsize=16)
def _grid_inputs(rows: int, columns: int, merge: int, window: int) -> tuple[tuple[str, Ints], ...]:
    # window: image tokens a side. Patches stand token by token, so everything is indexed from the token grid.
    row, column = np.indices((rows, columns), np.int64).reshape(2, -1, 1)
    inner_row, inner_column = np.indices((merge, merge), np.int64).reshape(2, 1, -1)
    places = np.stack([row * merge + inner_row, column * merge + inner_column], axis=-1).reshape(-1, 2)
    across = -(-columns // window)
    which = (row // window) * across + column // window
    within = ((row % window) * window + column % window) * merge**2
    full = (window * merge) ** 2
    patch_slots = (which * full + within + np.arange(merge**2)).reshape(-1)
    window_slots = np.full(-(-rows // window) * across * full, -1, np.int64)
    window_slots[patch_slots] = np.arange(len(patch_slots))
    made = (("patch_places", places), ("window_slots", window_slots.reshape(-1, full)), ("patch_slots", patch_slots))
    for _, array in made:
        array.setflags(write=False)
    return made
