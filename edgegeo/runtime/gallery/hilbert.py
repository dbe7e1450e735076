"""Rows in the order of a Hilbert curve over the sphere, and blocks of 64 of them under bounding caps.

Neighbours on the ground become neighbours on disk: what lies within a circle is a few ranges of rows.
"""

import numpy as np
from numpy.typing import NDArray

from edgegeo.runtime.gallery.region import Region
from edgegeo.runtime.sphere import vectors

BLOCK_ROWS = 64
_WIDE = 64  # blocks
_BITS = 20  # of a cube face's side: cells of some 10 m
_MARGIN = 1e-6  # radians (6 m): what float32 caps lose
_PIECE = 1 << 18


def curve(positions: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Where points (N, 2) in degrees lie along the curve, uint64: the face of a cube, then its Hilbert curve."""
    out = np.empty(len(positions), np.uint64)
    for start in range(0, len(positions), _PIECE):
        out[start : start + _PIECE] = _curve(vectors(positions[start : start + _PIECE]))
    return out


def caps(positions: NDArray[np.float64]) -> NDArray[np.float32]:
    """(B, 4) float32: for each 64 rows of (N, 2) a unit vector, and the angle in radians within which they all lie."""
    return _around(vectors(positions), np.zeros(len(positions)), BLOCK_ROWS)


class Caps:
    """The caps of 64 rows each, and wide ones of 64 such blocks: a region is looked up among the wide ones first."""

    def __init__(self, blocks: NDArray[np.float32]) -> None:
        """What `caps` gave."""
        self._blocks = blocks.astype(np.float64)
        self._wide = _around(self._blocks[:, :3], self._blocks[:, 3], _WIDE).astype(np.float64)

    def touched(self, region: Region, rows: int) -> NDArray[np.int64]:
        """Ranges (R, 2) of rows, from and up to, whose blocks a region may touch; neighbouring blocks are one range."""
        wide = np.flatnonzero(region.touches(self._wide[:, :3], self._wide[:, 3]))
        blocks = (wide[:, None] * _WIDE + np.arange(_WIDE)).ravel()
        blocks = blocks[: np.searchsorted(blocks, len(self._blocks))]
        found = self._blocks[blocks]
        blocks = blocks[region.touches(found[:, :3], found[:, 3])]
        if len(blocks) == 0:
            return np.empty((0, 2), np.int64)
        ends = np.flatnonzero(np.diff(blocks, append=-1) != 1)
        starts = np.concatenate([[0], ends[:-1] + 1])
        ranges = np.stack([blocks[starts], blocks[ends] + 1], axis=1) * BLOCK_ROWS
        return np.asarray(np.minimum(ranges, rows), np.int64)


def _around(points: NDArray[np.float64], radii: NDArray[np.float64], size: int) -> NDArray[np.float32]:
    """Caps (B, 4) round `size` neighbours each of caps (N, 3) of some radii."""
    starts = np.arange(0, len(points), size)
    total = np.add.reduceat(points, starts, axis=0)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    # Points that cancel each other have no middle; any centre will do, the cap is the sphere then.
    middle = np.where(length > 1e-9, total / np.maximum(length, 1e-9), [0.0, 0.0, 1.0]).astype(np.float32)
    each = np.repeat(middle.astype(np.float64), size, axis=0)[: len(points)]
    # The norm of a float32 vector is 1 only to 1e-7; the margin in the radius covers it.
    angle = 2 * np.arcsin(np.clip(np.linalg.norm(points - each, axis=1) / 2, 0.0, 1.0)) + radii
    reach = np.maximum.reduceat(angle, starts)[:, None] + _MARGIN
    return np.concatenate([middle, reach.astype(np.float32)], axis=1)


def _curve(points: NDArray[np.float64]) -> NDArray[np.uint64]:
    axis = np.abs(points).argmax(axis=1)
    main = np.take_along_axis(points, axis[:, None], axis=1)[:, 0]
    face = (2 * axis + (main < 0)).astype(np.uint64)
    sides = [np.take_along_axis(points, ((axis + turn) % 3)[:, None], axis=1)[:, 0] / np.abs(main) for turn in (1, 2)]
    # The angle instead of its tangent: cells of nearly equal size all over a face.
    x, y = (np.clip((np.arctan(side) / np.pi * 2 + 0.5) * (1 << _BITS), 0, (1 << _BITS) - 1) for side in sides)
    along = _hilbert(x.astype(np.int64), y.astype(np.int64))
    return np.asarray((face << np.uint64(2 * _BITS)) | along, np.uint64)


def _hilbert(x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Distance along the Hilbert curve of a square of 2^_BITS cells a side (Warren, Hacker's Delight, chapter 16)."""
    out, side = np.zeros(len(x), np.int64), 1 << (_BITS - 1)
    while side:
        right, up = (x & side) > 0, (y & side) > 0
        out += side * side * ((3 * right) ^ up)
        flip = ~up & right
        x, y = np.where(flip, ~x, x), np.where(flip, ~y, y)
        x, y = np.where(up, x, y), np.where(up, y, x)
        side >>= 1
    return np.asarray(out, np.uint64)
