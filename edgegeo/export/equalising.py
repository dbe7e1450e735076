"""Equalisation: outlier channels of activations are divided, and the matrices behind them multiplied, by one factor.

The division is folded into what makes the tensor, so it costs nothing at run time: into the scale of a norm (SmoothQuant,
Xiao et al., arXiv 2211.10438), or into the columns of the up projection whose gated output the down projection reads
(AWQ, Lin et al., arXiv 2306.00978). Factors follow from the activations alone, as in AWQ; weights have far fewer outliers.
"""  # noqa: E501

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgegeo.calibration import Statistics

Array = NDArray[np.float32]
NORMS = ("norm", "norm1", "norm2", "input_norm", "mlp_norm")
"""Last part of the names of norms. Where one is the input of matrices, nothing else reads it."""
LARGEST = 64.0
"""No channel is divided or multiplied by more."""


def equalising(statistics: Statistics, alpha: float, gated: bool) -> dict[str, Array]:
    """Tensor -> factor (channels,) it is to be divided by: (largest magnitude / geometric mean of these)^alpha.

    gated: whether the component's MLPs have gates as decoders have them.
    """
    if not alpha:
        return {}
    found: dict[str, Array] = {}
    for one in statistics.values():
        tensor = one.record.tensor
        base, _, last = tensor.rpartition(".")
        if tensor in found or (last not in NORMS and not (gated and last == "gated")):
            continue
        seen = np.maximum(one.absmax, max(float(one.absmax.max(initial=0.0)) * 1e-4, 1e-8))
        factor = np.exp(alpha * (np.log(seen) - np.log(seen).mean())).astype(np.float32)
        found[tensor] = np.clip(factor, 1.0 / LARGEST, LARGEST).astype(np.float32)
        if last == "gated":
            found[f"{base}.up"] = found[tensor]
    return found


def equalised_ranges(
    statistics: Statistics, method: str, factors: Mapping[str, Array]
) -> dict[str, tuple[float, float]]:
    """Layer -> (low, high) of its input by a method; of an equalised one what its channels reach after division."""
    found = statistics.ranges(method)
    for name, one in statistics.items():
        factor = factors.get(one.record.tensor)
        if factor is not None:
            reach = float((one.absmax / factor).max(initial=0.0))
            found[name] = (-reach if one.record.low < 0 else 0.0, reach if one.record.high > 0 else 0.0)
    return found
