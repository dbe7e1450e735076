"""Activation ranges for static quantisation: histograms over real samples, clipped where that lowers the error."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import InputError
from edgegeo.progress import Progress, silent

BINS = 2048
LEVELS = 255
Feeds = Callable[[], Iterable[Mapping[str, Any]]]
"""Yields the session's inputs batch by batch; called twice, for the bounds and for the histograms."""


def record_ranges(
    session: Any, layers: Mapping[str, str], feeds: Feeds, progress: Progress = silent
) -> dict[str, tuple[float, float]]:
    """Range (low, high) of every layer's input that quantises it to 8 bits with the least squared error.

    session: onnxruntime session of the float graph with the tensors `layers` (layer name -> tensor) as outputs.
    Bounds are searched between 40 and 100 % of what was seen, on histograms of 2048 bins. InputError without feeds.
    """
    tensors = sorted(set(layers.values()))
    bounds: dict[str, tuple[float, float]] = {}
    batches = 0
    for feed in feeds():
        for name, value in zip(tensors, session.run(tensors, dict(feed)), strict=True):
            low, high = bounds.get(name, (0.0, 0.0))
            bounds[name] = (min(low, float(value.min())), max(high, float(value.max())))
        batches += 1
        progress("calibrate", batches, 0)
    if not batches:
        raise InputError("a calibration needs at least one sample")
    counts = {name: np.zeros(BINS, np.int64) for name in tensors}
    for done, feed in enumerate(feeds()):
        for name, value in zip(tensors, session.run(tensors, dict(feed)), strict=True):
            counts[name] += np.histogram(value, BINS, bounds[name] if bounds[name][0] < bounds[name][1] else (0, 1))[0]
        progress("calibrate", batches + done + 1, 2 * batches)
    best = {name: clip(counts[name], *bounds[name]) for name in tensors}
    return {layer: best[tensor] for layer, tensor in layers.items()}


def clip(counts: NDArray[np.int64], low: float, high: float) -> tuple[float, float]:
    """The (low, high) with the least expected squared error of 8-bit rounding and clipping, given a histogram.

    counts (bins,) over [low, high], which contains 0.
    """
    if not low < high:
        return low, high
    centres = low + (np.arange(counts.size) + 0.5) * (high - low) / counts.size
    best, least = (low, high), np.inf
    for shrink in np.arange(1.0, 0.39, -0.03):
        for a, b in ((low * shrink, high * shrink), (low, high * shrink), (low * shrink, high)):
            step = max((b - a) / LEVELS, 1e-12)
            zero = np.clip(np.rint(-a / step), 0, LEVELS)
            codes = np.clip(np.rint(centres / step) + zero, 0, LEVELS)
            # Rounding within a bin is below the histogram's grain: its mean step^2 / 12 is added.
            error = float((counts * ((codes - zero) * step - centres) ** 2).sum() + counts.sum() * step**2 / 12)
            if error < least:
                best, least = (float(a), float(b)), error
    return best
