"""SmolVLM, SmolVLM2 and Idefics3: one square, or a grid of square tiles and then the whole picture once more."""

import math

import numpy as np
from PIL import Image

from edgegeo.bundle import ImageSpec
from edgegeo.runtime.pictures import Layout, Picture, positions_of, whole_layout
from edgegeo.runtime.pictures.pixels import normalised

MAX_EDGE = 4096
"""Longest edge after the first resize, whatever the settings say."""


def prepare(image: Image.Image, spec: ImageSpec) -> Picture:
    """`SmolVLMImageProcessorPil` (= Idefics3's) of transformers 5.23, bit-equal: {"pixel_values": (tiles, 3, size, size)}.

    First the longest edge with the aspect kept. Then, never split (`spec.max_tiles` 1), the square: its aspect is not
    kept, the picture fills it. Split: the next larger multiples of `size` on both sides, cut into tiles row by row,
    and the whole in one square at the end. Every tile is full, so that a single picture has no padding and its
    pixel_attention_mask is all ones: nothing to carry.
    """  # noqa: E501
    width, height = _longest_edge(*image.size, spec.longest_edge)
    if max(width, height) > MAX_EDGE:
        width, height = _below(width, height, MAX_EDGE)
    size, resample = spec.size, Image.Resampling(spec.resample)
    resized = image.resize((width, height), resample)
    rows, columns = (0, 0) if spec.max_tiles == 1 else _grid(width, height, size)
    if rows and resized.size != (columns * size, rows * size):  # else Pillow would copy it
        resized = resized.resize((columns * size, rows * size), resample)
    out = np.empty((rows * columns + 1, 3, size, size), np.float32)
    for index in range(rows * columns):
        left, top = index % columns * size, index // columns * size
        normalised(resized.crop((left, top, left + size, top + size)), spec, out[index])
    normalised(resized.resize((size, size), resample), spec, out[-1])
    return Picture({"pixel_values": out}, grid_layout(spec, rows, columns))


def most_positions(spec: ImageSpec) -> int:
    """Positions of one picture with its marks; of a square one, which has most tiles, where pictures are split."""
    side = 0 if spec.max_tiles == 1 else math.ceil(min(spec.longest_edge, MAX_EDGE) / spec.size)
    return positions_of(grid_layout(spec, side, side))


def grid_layout(spec: ImageSpec, rows: int, columns: int) -> Layout:
    """The layout of a picture of rows x columns tiles (0 x 0: not split).

    Marks: "row_R_col_C" before a tile, its newline where it begins a row included; "whole" before the last tile, which
    shows the whole picture; "after" behind it.
    """
    if not rows * columns:
        return whole_layout(spec)
    names = [f"row_{row + 1}_col_{column + 1}" for row in range(rows) for column in range(columns)]
    before = [np.array(spec.marks[name], np.int64) for name in [*names, "whole"]]
    return (*(part for mark in before for part in (mark, spec.tokens)), np.array(spec.marks["after"], np.int64))


def _grid(width: int, height: int, size: int) -> tuple[int, int]:
    """(rows, columns) of the tiles that cover a picture; (0, 0) where one holds all of it."""
    ratio = width / height
    if width >= height:
        columns = math.ceil(width / size)
        rows = math.ceil(int(columns * size / ratio) / size)
    else:
        rows = math.ceil(height / size)
        columns = math.ceil(int(rows * size * ratio) / size)
    return (rows, columns) if rows * columns > 1 else (0, 0)


def _longest_edge(width: int, height: int, edge: int) -> tuple[int, int]:
    ratio = width / height
    if width >= height:
        width, height = edge, int(edge / ratio)
        height += height % 2
    else:
        width, height = int(edge * ratio), edge
        width += width % 2
    return max(width, 1), max(height, 1)


def _below(width: int, height: int, edge: int) -> tuple[int, int]:
    ratio = width / height
    if width >= height:
        width, height = edge, int(edge / ratio)
    else:
        width, height = int(edge * ratio), edge
    return max(width, 1), max(height, 1)
