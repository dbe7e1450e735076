"""What a matrix multiplies, summed up over all samples: range, channels, and which channels move together."""

import numpy as np
from numpy.typing import NDArray

from edgegeo.calibration.histogram import Histogram

GRAM_COLUMNS = 1024
"""Largest square of second moments: a matrix of more rows gets several along its diagonal, so that 11,008 channels
take 45 MB instead of 485. Errors are then made good within a square only."""
GRAM_STEP = 256
"""Squares end at multiples of the largest block that shares a scale."""
Floats = NDArray[np.float32]
Arrays = dict[str, NDArray[np.generic]]


def squares(channels: int) -> list[tuple[int, int]]:
    """(first, past) of the squares along the diagonal, all about equally large."""
    pieces = -(-channels // GRAM_COLUMNS)
    step = -(-channels // pieces // GRAM_STEP) * GRAM_STEP if pieces > 1 else channels
    return [(a, min(a + step, channels)) for a in range(0, channels, step)]


class Observer:
    """Statistics of one tensor (..., channels), of which every row is one use of the matrix."""

    def __init__(self, moments: bool = False) -> None:
        """moments: also keep the second moments between channels, for GPTQ."""
        self.histogram = Histogram()
        self.rows = 0
        self.absmax: Floats = np.zeros(0, np.float32)
        self.square: NDArray[np.float64] = np.zeros(0)
        """Sum of squares of every channel."""
        self.grams: list[Floats] | None = [] if moments else None
        """Sums of x x^T by square of `squares`."""

    def see(self, value: Floats) -> None:
        """Add a tensor."""
        self.histogram.add(value)
        flat = np.ascontiguousarray(value.reshape(-1, value.shape[-1]), np.float32)
        if not len(self.absmax):
            self.absmax = np.zeros(flat.shape[1], np.float32)
            self.square = np.zeros(flat.shape[1])
            if self.grams is not None:
                self.grams = [np.zeros((b - a, b - a), np.float32) for a, b in squares(flat.shape[1])]
        if not len(flat):
            return
        self.rows += len(flat)
        np.maximum(self.absmax, np.abs(flat).max(axis=0), out=self.absmax)
        self.square += np.einsum("rc,rc->c", flat, flat, dtype=np.float64)
        for gram, (a, b) in zip(self.grams or (), squares(flat.shape[1]), strict=False):
            gram += flat[:, a:b].T @ flat[:, a:b]

    def arrays(self) -> Arrays:
        """Everything, for a file; the inverse of `restored`."""
        seen = self.histogram
        found: Arrays = {
            "counts": seen.counts, "bounds": np.array([seen.reach, seen.low, seen.high]), "rows": np.array(self.rows),
            "absmax": self.absmax, "square": self.square,
        }  # fmt: skip
        return found | {f"gram{index}": gram for index, gram in enumerate(self.grams or ())}

    @classmethod
    def restored(cls, arrays: Arrays, moments: bool) -> "Observer":
        """An observer that goes on from where `arrays` was taken."""
        one = cls(moments)
        one.histogram.counts = np.array(arrays["counts"], np.int64)
        one.histogram.reach, one.histogram.low, one.histogram.high = (float(v) for v in arrays["bounds"])
        one.rows = int(arrays["rows"])
        one.absmax, one.square = np.array(arrays["absmax"], np.float32), np.array(arrays["square"], np.float64)
        if moments:
            count = sum(name.startswith("gram") for name in arrays)
            one.grams = [np.array(arrays[f"gram{index}"], np.float32) for index in range(count)]
        return one
