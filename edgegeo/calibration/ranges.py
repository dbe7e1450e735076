"""The range of values that 8 bits are spread over, by the usual methods.

minmax       what was seen
percentile   all but the outermost 0.01 % (0.005 % a side)
entropy      least Kullback-Leibler divergence of the 8-bit distribution from the true one (Migacz, 8-bit inference with
             TensorRT, GTC 2017), here for asymmetric ranges
mse          least expected squared error of rounding and clipping

onnxruntime.quantization.calibrate has the first three for whole models whose graph its own tool rewrote, symmetric in
entropy, with all values of all samples held in memory; here they work on histograms of any graph.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgegeo.calibration.histogram import Histogram
from edgegeo.recipe import RANGES

LEVELS = 255
TAIL = 0.5e-4
"""Share of the values that "percentile" leaves out on either side."""
Floats = NDArray[np.float64]
Range = tuple[float, float]


def all_ranges(seen: Histogram) -> dict[str, Range]:
    """The range of every method; each contains 0, as zero points need. Nothing seen is (0, 0)."""
    if not seen.counts.any():
        return dict.fromkeys(RANGES, (0.0, 0.0))
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    used = np.flatnonzero(seen.counts)
    counts, centres = seen.counts[used].astype(np.float64), np.clip(seen.centres[used], low, high)
    tried = list(_candidates(low, high))
    errors = {
        "mse": [_squared_error(counts, centres, *one) for one in tried],
        "entropy": [_divergence(counts, centres, *one) for one in tried],
    }
    found = {method: tried[int(np.argmin(values))] for method, values in errors.items()}
    found["minmax"] = (low, high)
    found["percentile"] = _percentile(counts, centres, low, high)
    return {method: found[method] for method in RANGES}


def _candidates(low: float, high: float) -> Iterator[Range]:
    """Both bounds, or one of them, drawn in to as little as 10 %; the whole range first."""
    for shrink in [*np.arange(1.0, 0.39, -0.03), *np.arange(0.38, 0.09, -0.04)]:
        yield float(low * shrink), float(high * shrink)
        if low < 0.0 < high and shrink < 1.0:
            yield low, float(high * shrink)
            yield float(low * shrink), high


def _codes(centres: Floats, low: float, high: float) -> tuple[Floats, float, Floats]:
    step = max((high - low) / LEVELS, 1e-12)
    zero = np.clip(np.rint(-low / step), 0, LEVELS)
    return np.clip(np.rint(centres / step) + zero, 0, LEVELS), step, zero


def _squared_error(counts: Floats, centres: Floats, low: float, high: float) -> float:
    codes, step, zero = _codes(centres, low, high)
    # Rounding within a bin is below the histogram's grain: its mean step^2 / 12 is added.
    return float((counts * ((codes - zero) * step - centres) ** 2).sum() + counts.sum() * step**2 / 12)


def _divergence(counts: Floats, centres: Floats, low: float, high: float) -> float:
    """KL(P || Q): P the counts with what lies outside added to the outermost level, Q the same spread level by level.

    A level's count is spread evenly over the bins in it that hold anything, so that Q is what 8 bits can tell apart.
    """
    inside = (centres >= low) & (centres <= high)
    if not inside.any():
        return np.inf
    codes = _codes(centres, low, high)[0].astype(np.int64)
    kept, level = counts[inside], codes[inside]
    within = np.bincount(level, kept, LEVELS + 1)
    bins = np.bincount(level, minlength=LEVELS + 1)
    q = (within / np.maximum(bins, 1))[level]
    p = kept.copy()
    p[0] += counts[centres < low].sum()
    p[-1] += counts[centres > high].sum()
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())


def _percentile(counts: Floats, centres: Floats, low: float, high: float) -> Range:
    share = np.cumsum(counts) / counts.sum()
    first, last = np.searchsorted(share, [TAIL, 1.0 - TAIL])
    return min(float(centres[first]), 0.0) if low < 0 else 0.0, max(float(centres[min(last, len(centres) - 1)]), 0.0)
