"""Points on the sphere as unit vectors, many sets at once: no seam at the antimeridian, no hole at the poles.

Shapes: vectors (..., K, 3), weights (..., K); leading axes are independent sets. float64 throughout.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.geo import EARTH_RADIUS_KM

Doubles = NDArray[np.float64]
_STEPS = 60
_NEAR = 1e-7
"""Radians (0.6 m) below which a point pulls no harder: Weiszfeld's step divides by the distance."""


def vectors(places: Any) -> Doubles:
    """Unit vectors (..., 3) of latitudes and longitudes (..., 2) in degrees."""
    lat, lon = np.moveaxis(np.radians(np.asarray(places, np.float64)), -1, 0)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def places(points: Doubles) -> Doubles:
    """Latitudes and longitudes (..., 2) in degrees of vectors (..., 3) of any length but 0."""
    x, y, z = np.moveaxis(points, -1, 0)
    return np.stack([np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))], axis=-1)


def between_km(one: Doubles, other: Doubles) -> Doubles:
    """Great-circle kilometres between unit vectors (..., 3), broadcast; by the chord, exact for near points too."""
    chord = np.linalg.norm(one - other, axis=-1)
    return np.asarray(2 * EARTH_RADIUS_KM * np.arcsin(np.clip(chord / 2, 0.0, 1.0)))


def table_km(one: Doubles, other: Doubles) -> Doubles:
    """Kilometres (..., K, M) from each of K points to each of M."""
    return between_km(one[..., :, None, :], other[..., None, :, :])


def medoid(points: Doubles, weights: Doubles) -> Doubles:
    """The point (..., 3) among those with weight that has the smallest weighted sum of distances to all."""
    cost = (table_km(points, points) * weights[..., None, :]).sum(axis=-1)
    return picked(points, np.where(weights > 0, -cost, -np.inf))


def picked(points: Doubles, scores: Doubles) -> Doubles:
    """The point (..., 3) with the highest score (..., K); the first of equals."""
    return np.asarray(np.take_along_axis(points, scores.argmax(axis=-1)[..., None, None], axis=-2)[..., 0, :])


def mean(points: Doubles, weights: Doubles) -> Doubles:
    """The weighted mean (..., 3), brought back to the sphere; the medoid where the points cancel each other."""
    total = (points * weights[..., None]).sum(axis=-2)
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    void = length < 1e-9 * np.maximum(weights.sum(axis=-1, keepdims=True), 1e-300)
    out = total / np.where(void, 1.0, length)
    return np.where(void, medoid(points, weights), out) if void.any() else np.asarray(out)


def median(points: Doubles, weights: Doubles) -> Doubles:
    """The geometric median (..., 3): smallest weighted sum of great-circle distances, outliers pull no harder.

    Weiszfeld's iteration in the tangent plane (Fletcher et al. 2009, doi:10.1016/j.neuroimage.2008.10.052).
    """
    here = mean(points, weights)
    for _ in range(_STEPS):
        cosine = np.clip((points * here[..., None, :]).sum(axis=-1), -1.0, 1.0)
        across = points - cosine[..., None] * here[..., None, :]
        sine = np.linalg.norm(across, axis=-1)
        angle = np.arctan2(sine, cosine)
        pull = weights / np.maximum(angle, _NEAR)
        towards = across / np.maximum(sine, 1e-300)[..., None] * angle[..., None]
        step = (towards * pull[..., None]).sum(axis=-2) / np.maximum(pull.sum(axis=-1), 1e-300)[..., None]
        length = np.linalg.norm(step, axis=-1, keepdims=True)
        here = np.cos(length) * here + np.sinc(length / np.pi) * step
        here = here / np.linalg.norm(here, axis=-1, keepdims=True)
        if float(length.max(initial=0.0)) < _NEAR / 10:
            break
    return here


def towards(start: Doubles, end: Doubles, share: Doubles) -> Doubles:
    """The point (..., 3) that lies `share` (...) of the great circle from `start` to `end`; antipodes stay put."""
    cosine = np.clip((start * end).sum(axis=-1, keepdims=True), -1.0, 1.0)
    across = end - cosine * start
    sine = np.linalg.norm(across, axis=-1, keepdims=True)
    angle = np.arctan2(sine, cosine) * share[..., None]
    moved = np.cos(angle) * start + np.sin(angle) * across / np.maximum(sine, 1e-300)
    return np.where(sine < 1e-12, start, moved)
