"""Pairs whose pictures a frozen tower has seen: what it says of them stays the same, so it looks once."""

import torch

from edgegeo.models.family import Seen
from edgegeo.progress import Progress
from edgegeo.runtime.pictures import Picture
from edgegeo.train.adapting import Learner
from edgegeo.train.sources import Generator, Pair, Pairs, Rows


class SeenPairs:
    """Some rows of a source in memory, pictures as their image tokens; a text is the first of its row."""

    def __init__(self, source: Pairs, learner: Learner, index: Rows, progress: Progress) -> None:
        self.kinds, self.groups, self.targets = source.kinds, source.groups, source.targets
        self.fingerprint, self.refused = source.fingerprint, source.refused
        self._pairs: dict[int, Pair] = {}
        for start in range(0, len(index), learner.stride):
            some = index[start : start + learner.stride]
            self._pairs |= dict(zip(some.tolist(), _look(source.pairs(some, None), learner), strict=True))
            progress("looking at pictures", start + len(some), len(index))

    def pairs(self, index: Rows, rng: Generator | None) -> list[Pair]:
        """The pairs of some of its rows; a generator finds nothing to choose."""
        return [self._pairs[row] for row in index.tolist()]


def look_once(source: Pairs, learner: Learner, index: Rows, room_mb: int, progress: Progress) -> Pairs:
    """The source with the pictures of `index` seen, or as it is where the tower learns or they would take more room."""
    if learner.sees_learning:
        return source
    one = _look(source.pairs(index[:1], None), learner)[0]
    size = sum(side.rows.nbytes for side in (*one.queries, one.target) if isinstance(side, Seen))
    return source if size * len(index) > room_mb * 2**20 else SeenPairs(source, learner, index, progress)


@torch.no_grad()
def _look(pairs: list[Pair], learner: Learner) -> list[Pair]:
    """The pairs with image tokens instead of pixels."""
    sides = [side for pair in pairs for side in (*pair.queries, pair.target)]
    seen = iter(learner.seen(tuple(side for side in sides if isinstance(side, Picture))))
    known = iter([side if isinstance(side, str) else _without_pixels(next(seen)) for side in sides])
    return [Pair(tuple(next(known) for _ in pair.queries), next(known)) for pair in pairs]


def _without_pixels(picture: Picture) -> Seen:
    assert isinstance(picture, Seen)
    return Seen({}, picture.layout, picture.grid, picture.rows)
