"""GPTQ (Frantar et al., arXiv 2210.17323): rows are rounded in turn, and the error of each is made good in the rest.

onnxruntime carries a GPTQ (quantization/neural_compressor): it returns weights without the scales they were rounded
with, which its caller then guesses anew, works only on whole ONNX models without contrib operators, and inverts one
matrix of all rows, 1.5 GB for 11,008 of them. Here scales belong to codes, and squares of at most 1,024 rows are kept
(`edgegeo.calibration.observer`).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgegeo.export.rounding.grid import fit_scales, round_to

Array = NDArray[np.float32]
DAMPING = 0.01
"""Share of the mean second moment that is added to all: what was never seen is not worth any other error."""
COLUMNS = 1024
"""Columns that are rounded together: each step works on one row of them."""


def inverse_factors(grams: Sequence[Array], factor: Array | None = None) -> list[Array]:
    """U of every square, upper triangular with U^T U = (X^T X + damping)^-1.

    grams: mean x x^T along the diagonal; factor (K,): the activations are divided by it first.
    """
    found, start = [], 0
    for gram in grams:
        size = len(gram)
        square = np.asarray(gram, np.float64)
        if factor is not None:
            by = np.asarray(factor[start : start + size], np.float64)
            square = square / by[:, None] / by[None, :]
        mean = float(np.mean(np.diag(square)))
        square = square + np.eye(size) * (DAMPING * mean if mean > 0 else 1.0)
        found.append(np.asarray(np.linalg.cholesky(np.linalg.inv(square)).T, np.float32))
        start += size
    return found


def round_in_turn(
    part: Array, factors: Sequence[Array], importance: Array, block_size: int, bits: int, positive: bool
) -> tuple[Array, Array]:
    """Signed codes (K, C) float32 and scales (K/block, C) of columns (K, C).

    factors: of `inverse_factors`; importance (K,): mean square of every input, by which a block's scale is chosen.
    """
    rest = np.array(part, np.float32)
    k, c = rest.shape
    codes = np.empty_like(rest)
    scales = np.empty((-(-k // block_size), c), np.float32)
    floor = np.float32(DAMPING * importance.mean() or 1.0)
    start = 0
    for upper in factors:
        end = start + len(upper)
        for first in range(start, end, block_size):
            past = min(first + block_size, end)
            weight = (importance[first:past] + floor)[:, None]
            scale = fit_scales(rest[first:past], bits, positive, weight)[1]
            scales[first // block_size] = scale
            errors = np.empty((past - first, c), np.float32)
            for row in range(first, past):
                at = row - start
                round_to(rest[row], scale, bits, codes[row])
                errors[row - first] = (rest[row] - codes[row] * scale) / upper[at, at]
                later = slice(row + 1, past)
                rest[later] -= upper[at, at + 1 : past - start, None] * errors[row - first]
            rest[past:end] -= upper[first - start : past - start, past - start :].T @ errors
        start = end
    return codes, scales
