"""Batches that hold places hard to tell apart: what a model learns least from by chance."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgegeo.train.data import Words

GROUP = 4
"""Alike places that are drawn together."""
REGIONAL = "region"
"""The fact that settles most of what a photo shows: roads, roofs, trees, crops."""


class AlikePlaces:
    """Draws batches of which half is groups of places with many facts in common, and half is drawn by chance."""

    def __init__(self, words: Sequence[Words]) -> None:
        self.keys = sorted({key for one in words for key in one.facts})
        columns = [np.unique([one.facts.get(key, "") for one in words], return_inverse=True)[1] for key in self.keys]
        self.facts: NDArray[np.int16] = np.array(columns, np.int16).reshape(len(self.keys), len(words))

    def batch(self, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """`size` different places in an order without meaning; which ones depends on the generator only."""
        count = self.facts.shape[1]
        groups = size // 2 // GROUP
        if not self.keys or count < 2 * size:
            return rng.choice(count, size, replace=False)
        chosen = self._runs(groups, rng)
        others = np.setdiff1d(rng.choice(count, 2 * size, replace=False), chosen)
        return rng.permutation(np.concatenate([chosen, rng.permutation(others)[: size - chosen.size]]))

    def _runs(self, groups: int, rng: np.random.Generator) -> NDArray[np.int64]:
        # Sorted by facts in a random order of importance, neighbours agree on the first several of them.
        order = rng.permutation(len(self.keys)).tolist()
        if REGIONAL in self.keys and rng.random() < 0.5:
            order.remove(self.keys.index(REGIONAL))
            order.insert(0, self.keys.index(REGIONAL))
        ties = rng.permutation(self.facts.shape[1])
        ranked = np.lexsort((ties, *self.facts[order[::-1]]))
        starts = rng.choice(self.facts.shape[1] // GROUP, groups, replace=False) * GROUP
        return ranked[starts[:, None] + np.arange(GROUP)].ravel()
