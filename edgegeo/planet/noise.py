"""Integer hashing, dice and lattice noise: the only sources of chance on the planet.

Everything is built on the SplitMix64 finaliser (Steele, Lea and Flood, OOPSLA 2014) over 64-bit integers, so the
same seed gives the same planet on every machine; Python's `hash` and NumPy's global generator are never used.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]
T = TypeVar("T")

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_M1 = 0xBF58476D1CE4E5B9
_M2 = 0x94D049BB133111EB


def mix64(*values: int) -> int:
    """One 64-bit hash of any number of integers; the order matters."""
    h = 0
    for value in values:
        h = (h ^ (value & _MASK)) + _GOLDEN & _MASK
        h = (h ^ (h >> 30)) * _M1 & _MASK
        h = (h ^ (h >> 27)) * _M2 & _MASK
        h ^= h >> 31
    return h


def mix64_array(h: Words | int, values: NDArray[Any]) -> Words:
    """`mix64` over arrays: fold `values` (integers, any shape) into the running hash `h`."""
    with np.errstate(over="ignore"):
        x = (np.uint64(h) if isinstance(h, int) else h) ^ values.astype(np.uint64)
        x = x + np.uint64(_GOLDEN)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(_M1)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(_M2)
        return x ^ (x >> np.uint64(31))


def unit_array(words: Words) -> Floats:
    """Hash words as float64 in [0, 1): their top 53 bits."""
    return (words >> np.uint64(11)).astype(np.float64) * (1.0 / (1 << 53))


class Dice:
    """A stream of chance from one integer; pure Python, so cheap for the hundreds of draws of one scene."""

    def __init__(self, *seed: int) -> None:
        self._state = mix64(*seed)

    def unit(self) -> float:
        """A float in [0, 1)."""
        self._state = s = self._state + _GOLDEN & _MASK
        s = (s ^ (s >> 30)) * _M1 & _MASK
        s = (s ^ (s >> 27)) * _M2 & _MASK
        return ((s ^ (s >> 31)) >> 11) * (1.0 / (1 << 53))

    def span(self, low: float, high: float) -> float:
        """A float in [low, high)."""
        return low + (high - low) * self.unit()

    def below(self, n: int) -> int:
        """An integer in [0, n)."""
        return int(self.unit() * n)

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        return options[int(self.unit() * len(options))]

    def weighted(self, options: Sequence[T], weights: Sequence[float]) -> T:
        """One of the options, in proportion to the weights."""
        left = self.unit() * sum(weights)
        for option, weight in zip(options, weights, strict=True):
            left -= weight
            if left < 0:
                return option
        return options[-1]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """The options in random order (Fisher and Yates)."""
        out = list(options)
        for i in range(len(out) - 1, 0, -1):
            j = self.below(i + 1)
            out[i], out[j] = out[j], out[i]
        return out


def value_noise(points: Floats, frequency: float, seed: int) -> Floats:
    """Smooth noise in [-1, 1] at unit vectors `points` (N, 3): random values on a cubic lattice, quintic blend."""
    scaled = points * frequency + 64.0
    cell = np.floor(scaled)
    t = scaled - cell
    t = t * t * t * (t * (t * 6.0 - 15.0) + 10.0)
    base = cell.astype(np.int64)
    hx = [mix64_array(seed & _MASK, base[:, 0] + d) for d in (0, 1)]
    total = np.zeros(len(points))
    for dx in (0, 1):
        wx = t[:, 0] if dx else 1.0 - t[:, 0]
        for dy in (0, 1):
            wxy = wx * (t[:, 1] if dy else 1.0 - t[:, 1])
            hxy = mix64_array(hx[dx], base[:, 1] + dy)
            for dz in (0, 1):
                corner = unit_array(mix64_array(hxy, base[:, 2] + dz))
                total += wxy * (t[:, 2] if dz else 1.0 - t[:, 2]) * corner
    return total * 2.0 - 1.0


def fractal_noise(points: Floats, frequency: float, octaves: int, seed: int, gain: float = 0.5) -> Floats:
    """Octaves of `value_noise`, each twice as fine and `gain` times as strong as the last; not normalised."""
    total = np.zeros(len(points))
    weight = 1.0
    for octave in range(octaves):
        total += weight * value_noise(points, frequency * 2.0**octave, mix64(seed, octave))
        weight *= gain
    return total


def grain_sheet(size: int, blur: int, seed: int) -> Floats:
    """A (size, size) sheet of tileable grain with zero mean and unit deviation; `blur` px sets the lump size."""
    index = np.arange(size * size, dtype=np.int64)
    sheet = unit_array(mix64_array(mix64(seed, blur), index)).reshape(size, size) - 0.5
    for axis in (0, 1):
        for _ in range(2):
            if blur > 1:
                sheet = sum((np.roll(sheet, shift, axis) for shift in range(blur)), np.zeros_like(sheet)) / blur
    out: Floats = np.round((sheet - sheet.mean()) / sheet.std(), 6)
    return out
