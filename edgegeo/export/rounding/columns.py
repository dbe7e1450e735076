"""8-bit columns."""

import numpy as np
from numpy.typing import NDArray

from edgegeo.export.rounding.slices import in_slices

Array = NDArray[np.float32]


def quantise_columns(weight: Array) -> tuple[NDArray[np.int8], Array]:
    """Symmetric int8 with one scale per output column: (K, N) -> int8 (K, N), scale (N,) float32."""
    k, n = weight.shape
    codes, scale = np.empty((k, n), np.int8), np.empty(n, np.float32)

    def work(a: int, b: int) -> None:
        part = weight[:, a:b]
        peak = np.abs(part).max(axis=0) / np.float32(127.0)
        scale[a:b] = np.where(peak > 0, peak, np.float32(1.0))
        codes[:, a:b] = np.clip(np.rint(part / scale[a:b]), -127, 127)

    in_slices(work, n, k)
    return codes, scale
