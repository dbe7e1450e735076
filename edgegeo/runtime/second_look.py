"""The best hits of a search looked at again, as pairs with the query, and put in a new order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgegeo.errors import InputError
from edgegeo.runtime.doubt import Fit
from edgegeo.runtime.gallery.backend import GalleryBackend
from edgegeo.runtime.outcome import Hit
from edgegeo.runtime.pictures import ImageTokens
from edgegeo.runtime.rerank import Asked, Reranker, probability
from edgegeo.runtime.sphere import Doubles
from edgegeo.runtime.tile_features import TileFeatures
from edgegeo.runtime.tournament import one_pass
from edgegeo.runtime.weighing import Weighing, doubts, rank

CONFIDENT = 0.9
"""p(yes) from which the best re-ranked tile outweighs a generated position, in a bundle that was not fitted for it."""


@dataclass(frozen=True)
class Reranking:
    """How hits are looked at again."""

    count: int = 20
    """The best so many of the search; 0: none."""
    both_orders: bool = False
    """Whether each pair is read twice, query first and candidate first."""
    pairwise: int = 0
    """Afterwards the best so many are compared two by two: n - 1 comparisons of two prompts each; 0: none."""
    whole: bool = False
    """Whether all are looked at, also those that can't change the hits that are returned: every one has its p(yes)."""

    def __post_init__(self) -> None:
        if self.count < 0 or self.pairwise < 0 or self.pairwise == 1:
            raise InputError(
                f"re-ranking looks at 0 or more hits and compares 0 or at least 2, not {self.count} and {self.pairwise}"
            )
        if self.pairwise > self.count or (self.both_orders and not self.count):
            raise InputError("only hits that are re-ranked are read in both orders or compared; re-rank more of them")


@dataclass(frozen=True)
class Reordered:
    """Hits after a second look."""

    hits: list[Hit]
    sure: bool
    """Whether the first one shows the place itself."""
    looked: bool = True
    """Whether any was looked at; if not, they are as the search had them."""


class SecondLook:
    """One query's second look. Photos and words are asked apart and their log-odds added, as evidence is."""

    def __init__(
        self, reranker: Reranker, photos: Sequence[ImageTokens], text: str | None, fit: Fit | None, how: Reranking
    ) -> None:
        """photos: after the re-ranker's vision tower."""
        self._how, self._photos = how, len(photos)
        if how.pairwise:
            reranker.check_pairs()
        weighings = fit.rerank if fit is not None else {}
        of = {kind: weighings.get(kind, Weighing()) for kind in ("photo", "text")}
        self._parts: list[tuple[Asked, Weighing, float]] = []
        for photo in photos:
            self._parts.append((reranker.ask(photo, how.both_orders), of["photo"], 1 / len(photos)))
        if text is not None:
            self._parts.append((reranker.ask(text, how.both_orders), of["text"], 1.0))
        self._weighing = self._parts[0][1] if len(self._parts) == 1 else self._joined()
        self._seen: dict[int, Doubles] = {}

    def reorder(self, hits: Sequence[Hit], gallery: GalleryBackend, kept: TileFeatures, top: int) -> Reordered:
        """The first `count` hits in their new order, then the others; the first `top` are as if all were looked at."""
        first = list(hits[: self._how.count])
        if not first:
            return Reordered(list(hits), False, False)

        def tokens(places: Sequence[int]) -> list[ImageTokens]:
            rows = [gallery.row(first[i].id) for i in places]
            return kept.of([gallery.thumbnail(row) for row in rows if row is not None])

        def look(places: Sequence[int]) -> Doubles:
            shown = tokens(places)
            of_parts = np.stack([asked.margins(shown) for asked, _, _ in self._parts])
            self._seen.update(zip(places, of_parts.T, strict=True))
            return of_parts[0] if len(self._parts) == 1 else self._summed(of_parts)

        scores = np.array([hit.score for hit in first], np.float64)
        top = len(first) if self._how.pairwise else top
        ranked = rank(scores, self._weighing, look, top, whole=self._how.whole)
        order = [int(i) for i in ranked.order]
        if self._how.pairwise:
            n = self._how.pairwise
            order[:n] = one_pass(order[:n], ranked.values.tolist(), lambda a, b: self._prefers(*tokens([a, b])), 1.0)
        if not self._seen and not self._how.pairwise:
            return Reordered(list(hits), False, False)
        told = [Hit(first[i].id, first[i].position, first[i].score, self._p_yes(i)) for i in order]
        return Reordered([*told, *hits[self._how.count :]], self._sure(scores, ranked.values, order))

    def _joined(self) -> Weighing:
        """Of several parts: the first one's temperature, and the sum of what each part can come to."""
        low = sum(share * w.weight * w.low for _, w, share in self._parts)
        high = sum(share * w.weight * w.high for _, w, share in self._parts)
        return Weighing(self._parts[0][1].temperature, 1.0, low, high)

    def _summed(self, margins: Doubles) -> Doubles:
        """Log-likelihoods (n,) of margins (parts, n)."""
        parts = zip(self._parts, margins, strict=True)
        return np.asarray(sum(share * w.weight * np.clip(row, w.low, w.high) for (_, w, share), row in parts))

    def _prefers(self, one: ImageTokens, other: ImageTokens) -> float:
        return sum(share * w.pair_weight * asked.prefers(one, other) for asked, w, share in self._parts)

    def _p_yes(self, place: int) -> float | None:
        """Of the photos where there are any, else of the words; None if it was not looked at."""
        if place not in self._seen:
            return None
        shown = self._seen[place][: max(1, self._photos)]
        return float(probability(shown.mean(keepdims=True))[0])

    def _sure(self, scores: Doubles, values: Doubles, order: list[int]) -> bool:
        line = self._parts[0][1].sure
        p_yes = self._p_yes(order[0])
        if line is None or len(self._parts) > 1:
            return p_yes is not None and p_yes >= CONFIDENT
        margins = np.array([self._seen[i][0] if i in self._seen else np.nan for i in order])
        return bool(line(doubts(scores[order][None], margins[None], values[order][None]))[0] > 0)
