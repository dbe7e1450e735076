"""One prompt for many candidates: what stands before the first of them is computed once, its keys and values kept."""

from collections.abc import Sequence

import numpy as np

from edgegeo.errors import BundleError
from edgegeo.runtime.growing import GrowingCache
from edgegeo.runtime.model import Model
from edgegeo.runtime.pictures import ImageTokens, Instead
from edgegeo.runtime.tokens import Piece
from edgegeo.runtime.trunk import Floats, KVCache, Mark, TrunkInput

_ROWS = 8
"""Candidates in one run, where the decoder takes several behind a shared past."""
Shown = Sequence[ImageTokens]
"""The pictures of one candidate prompt, in the order of their slots."""


class SharedPrompt:
    """A filled prompt with slots left open for candidates.

    ONNX Runtime's GroupQueryAttention takes one row at a time behind a past, so there every candidate overwrites the
    rest of one KV buffer; graphs of the trt dialect take them as a batch.
    """

    def __init__(self, model: Model, trunk: str, pieces: Sequence[Piece], pictures: Shown) -> None:
        """pictures: those of the query, in slots 0 and up; the candidates' follow."""
        self._model, self._trunk = model, model.trunk(trunk)
        self._pieces, self._query = list(pieces), [[picture] for picture in pictures]
        slot = len(pictures)
        places = [i for i, piece in enumerate(pieces) if isinstance(piece, int) and piece >= slot]
        if not places:
            raise BundleError(f"{model.bundle.path}: the re-rank prompt shows no candidate; export it again")
        self._cut = places[0]
        self._prefixes: dict[int, tuple[KVCache | GrowingCache, Mark]] = {}

    def last(self, candidates: Sequence[Shown]) -> Floats:
        """Hidden states (N, H) of the prompt's last position, for the pictures of N candidates."""
        out = np.empty((len(candidates), self._model.bundle.decoder.hidden), np.float32)
        # A picture that rewrites the words before it does not share them.
        rewrites = [any(isinstance(one.layout[0], Instead) for one in shown) for shown in candidates]
        for cut in (self._cut, self._cut - 1):
            rows = [i for i, rewritten in enumerate(rewrites) if max(0, self._cut - rewritten) == cut]
            if rows:
                out[rows] = self._behind(cut, [candidates[i] for i in rows])
        return out

    def _behind(self, cut: int, candidates: Sequence[Shown]) -> Floats:
        suffixes = [self._fed(self._pieces[cut:], shown) for shown in candidates]
        cache, mark = self._prefix(cut, max(int(suffix.lengths[0]) for suffix in suffixes))
        if isinstance(cache, GrowingCache) and len(candidates) > 1:
            return self._together(cut, candidates, cache)
        rows = []
        for suffix in suffixes:
            cache.rewind(mark)
            rows.append(cache.extend(suffix, suffix.lengths[None] - 1)[0, 0])
        return np.stack(rows)

    def _together(self, cut: int, candidates: Sequence[Shown], cache: GrowingCache) -> Floats:
        """Candidates as rows behind copies of the prefix; padding stands on the right, where no row looks."""
        cache.rewind(self._prefixes[cut][1])
        rows = []
        for start in range(0, len(candidates), _ROWS):
            some = candidates[start : start + _ROWS]
            slots = [*self._query, *map(list, zip(*some, strict=True))]
            fed = self._model.assemble([self._pieces[cut:]] * len(some), slots)
            rows.append(cache.expand(len(some)).extend(fed, fed.lengths[:, None] - 1)[:, 0])
        return np.concatenate(rows)

    def _prefix(self, cut: int, room: int) -> tuple[KVCache | GrowingCache, Mark]:
        """The cache after the first `cut` pieces, with room for `room` more positions."""
        known = self._prefixes.get(cut)
        if known is not None and (isinstance(known[0], GrowingCache) or known[1].length + room <= known[0].capacity):
            return known
        fed = self._fed(self._pieces[:cut], ()) if cut else None
        cache = self._trunk.cache(1, room + (int(fed.lengths[0]) if fed is not None else 0))
        if fed is not None:
            cache.extend(fed, fed.lengths[None] - 1)
        self._prefixes[cut] = cache, cache.mark()
        return self._prefixes[cut]

    def _fed(self, pieces: Sequence[Piece], shown: Shown) -> TrunkInput:
        return self._model.assemble([pieces], [*self._query, *([picture] for picture in shown)])
