"""Logistic regression small enough to be stored as plain numbers."""

from typing import Any

import numpy as np

from edgegeo.errors import InputError
from edgegeo.runtime.fusion import Linear
from edgegeo.runtime.sphere import Doubles

RIDGE = 1.0
"""Penalty on the weights of standardised features: few labelled places must not make bold claims."""
_STEPS = 30


def logistic(features: dict[str, Doubles], target: Any, ridge: float = RIDGE) -> Linear:
    """Weights of log(p / (1 - p)) of a 0/1 target (N,), by Newton's method on standardised features."""
    wanted = np.asarray(target, np.float64)
    if not features or wanted.ndim != 1 or not wanted.size:
        raise InputError("a fit needs at least one labelled place and one feature")
    names = tuple(features)
    raw = np.stack([np.asarray(features[name], np.float64) for name in names], axis=1)
    middle, width = raw.mean(axis=0), raw.std(axis=0)
    width = np.where(width > 1e-9, width, 1.0)
    x = np.concatenate([np.ones((len(raw), 1)), (raw - middle) / width], axis=1)
    penalty = np.full(x.shape[1], ridge)
    # The bias is held by half a place only, so that a target of one class stays finite.
    penalty[0] = 0.5
    beta = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        slope = x.T @ (wanted - p) - penalty * beta
        curve = (x * (p * (1 - p))[:, None]).T @ x + np.diag(penalty)
        step = np.linalg.solve(curve, slope)
        # A full Newton step can overshoot where all probabilities are near 0 or 1.
        beta = beta + step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < 1e-10:
            break
    weights = beta[1:] / width
    return Linear(names, tuple(float(w) for w in weights), float(beta[0] - (weights * middle).sum()))
