"""A histogram of values that come batch by batch, without a first pass for their bounds."""

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import InputError

BINS = 4096
"""Over [-reach, reach], so at least a quarter of them lies between the extremes of one sign."""
MOST_VALUES = 1 << 18
"""Values of a batch that are counted; of more, every n-th. The extremes are exact."""
SMALLEST_REACH = 2.0**-30


class Histogram:
    """Counts over [-reach, reach], where reach is a power of two that doubles when a value lies beyond it.

    Bins are merged in pairs then, so that counts do not depend on the order in which values came.
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.reach = SMALLEST_REACH
        self.low, self.high = np.inf, -np.inf

    def add(self, values: NDArray[np.float32]) -> None:
        """Count a batch of any shape; InputError where a value is not finite, which no range can hold."""
        flat = values.reshape(-1)
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise InputError("the float model gives values that are not finite on a sample; check its weights")
        self.low, self.high = min(self.low, low), max(self.high, high)
        while max(-low, high) > self.reach:
            self._double()
        # Odd, so that it does not walk along one channel.
        step = (flat.size // MOST_VALUES) | 1
        places = ((flat[::step] + np.float32(self.reach)) * np.float32(BINS / (2 * self.reach))).astype(np.int64)
        self.counts += np.bincount(np.minimum(places, BINS - 1), minlength=BINS)

    def _double(self) -> None:
        pairs = self.counts.reshape(-1, 2).sum(axis=1)
        self.counts = np.zeros(BINS, np.int64)
        self.counts[BINS // 4 : BINS // 4 + BINS // 2] = pairs
        self.reach *= 2.0

    @property
    def centres(self) -> NDArray[np.float64]:
        """(BINS,) the middle of every bin."""
        return np.asarray((np.arange(BINS) + 0.5) * (2 * self.reach / BINS) - self.reach, np.float64)
