"""The choice of a method for one matrix."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgegeo.calibration import LayerStatistics

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Rounder:
    """How one matrix is rounded to blocks."""

    method: str = "nearest"
    """One of `edgegeo.recipe.ROUNDINGS`."""
    statistics: "LayerStatistics | None" = None
    """What the matrix multiplies; "gptq" needs it."""
    factor: Array | None = None
    """(K,) what equalisation multiplied the rows with: the activations are divided by it."""
