"""The scale of a block: the one of a few that gives the least error."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

SHRINKS = np.arange(1.0, 0.74, -0.02, dtype=np.float32)
FEW_SHRINKS = np.arange(1.0, 0.49, -0.025, dtype=np.float32)
"""A block tries its full range and these shares of it: at 4 bits and more; at fewer, whose best range is shorter."""


def as_blocks(part: Array, block_size: int) -> Array:
    """(K, C) -> (block, K/block * C): a column is one block, so that every step runs along long rows."""
    k, c = part.shape
    blocks = -(-k // block_size)
    cells = np.zeros((block_size, blocks, c), np.float32)
    whole = k // block_size
    cells[:, :whole] = part[: whole * block_size].reshape(whole, block_size, c).transpose(1, 0, 2)
    if whole < blocks:
        cells[: k - whole * block_size, whole] = part[whole * block_size :]
    return cells.reshape(block_size, -1)


def fit_scales(cells: Array, bits: int = 4, positive: bool = False, weight: Array | None = None) -> tuple[Array, Array]:
    """Signed codes (block, M) as float32 and scales (M,) of cells (block, M), with the least squared error tried.

    positive: no scale is negative, as TensorRT wants them; a block whose peak is positive then does not reach the
    lowest code. weight (block, 1): how much the error of each row counts.
    """
    least = np.float32(-(2 ** (bits - 1)))
    low, high = cells.min(axis=0), cells.max(axis=0)
    peak = np.minimum(low, high * (least / (-least - 1))) if positive else np.where(high > -low, high, low)
    scale = np.ones_like(peak)
    best = np.full_like(peak, np.inf)
    work, trial = np.empty_like(cells), np.empty_like(peak)
    for shrink in SHRINKS if bits >= 4 else FEW_SHRINKS:
        np.copyto(trial, np.where(peak == 0, np.float32(1.0), peak * shrink / least))
        round_to(cells, trial, bits, work)
        np.multiply(work, trial, out=work)
        np.subtract(work, cells, out=work)
        np.square(work, out=work)
        if weight is not None:
            np.multiply(work, weight, out=work)
        error = work.sum(axis=0)
        better = error < best
        np.copyto(scale, trial, where=better)
        np.copyto(best, error, where=better)
    round_to(cells, scale, bits, work)
    return work, scale


def round_to(cells: Array, scale: Array, bits: int, out: Array) -> None:
    """The nearest signed codes, into `out`."""
    most = np.float32(2 ** (bits - 1))
    np.divide(cells, scale, out=out)
    np.rint(out, out=out)
    np.maximum(out, -most, out=out)
    np.minimum(out, most - np.float32(1.0), out=out)
