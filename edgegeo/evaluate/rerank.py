"""Does looking at query and candidate together move the right tile up? First-stage top k, then yes/no."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgegeo.evaluate.retrieval import Embeddings
from edgegeo.evaluate.scenes import Scene
from edgegeo.progress import Progress, silent
from edgegeo.runtime import ImageTokens, Reranker
from edgegeo.runtime.doubt import open_fit
from edgegeo.runtime.weighing import Weighing

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Looked:
    """B queries and the k best tiles of the search for each, all of them looked at."""

    scores: Floats
    """(B, k) cosines, best first."""
    margins: Floats
    """(B, k) log-odds of yes."""
    right: NDArray[np.bool_]
    """(B, k) whether it is the query's own tile."""

    def first(self, values: Floats) -> Floats:
        """(B,) 0/1: whether the own tile comes first by values (B, k); of equal ones the first counts."""
        return np.asarray(self.right[np.arange(len(values)), values.argmax(axis=1)], np.float64)


@dataclass(frozen=True)
class RerankRun:
    """0/1 a place (N,): the right tile comes first, before and after re-ranking the same candidates."""

    first_stage: Floats
    yes_no: Floats
    """By p(yes) alone."""
    fused: Floats
    """By both stages, weighed as the bundle's fit says (edgegeo/runtime/weighing.py)."""


def rerank_scenes(
    reranker: Reranker, embeddings: Embeddings, scenes: Sequence[Scene], query: str, k: int = 10,
    progress: Progress = silent,
) -> RerankRun:  # fmt: skip
    """Re-rank the top k tiles of every scene's text or photo (`query`: "text" or "photo")."""
    looked = look(reranker, embeddings, scenes, query, k, progress)
    fit = open_fit(reranker.model.bundle)
    weighing = fit.rerank.get(query, Weighing()) if fit is not None else Weighing()
    fused = weighing.fused(looked.scores, looked.margins)
    return RerankRun(looked.first(looked.scores), looked.first(looked.margins), looked.first(fused))


def look(
    reranker: Reranker, embeddings: Embeddings, scenes: Sequence[Scene], query: str, k: int = 10,
    progress: Progress = silent, both_orders: bool = False,
) -> Looked:  # fmt: skip
    """Ask about the top k tiles of every query; queries may be fewer than tiles."""
    vectors = embeddings.texts if query == "text" else embeddings.photos
    k = min(k, len(embeddings.tiles))
    scores, margins, right = np.empty((len(vectors), k)), np.empty((len(vectors), k)), np.zeros((len(vectors), k), bool)
    tiles = _Tiles(reranker, scenes)
    for i, vector in enumerate(vectors):
        cosines = embeddings.tiles @ vector
        top = np.argsort(-cosines, kind="stable")[:k]
        asked = reranker.ask(scenes[i].text if query == "text" else scenes[i].photo, both_orders)
        scores[i], margins[i], right[i] = cosines[top], asked.margins(tiles.of(top)), top == i
        progress(f"re-rank by {query}", i + 1, len(vectors))
    return Looked(scores, margins, right)


def compare(
    reranker: Reranker, embeddings: Embeddings, scenes: Sequence[Scene], query: str, looked: Looked,
    weighing: Weighing, progress: Progress = silent,
) -> tuple[Floats, Floats]:  # fmt: skip
    """The own tile against its best rival, two by two: (lead by both stages, log-odds of the comparison), (n,) each.

    Of the queries that have their own tile among the candidates.
    """
    vectors = embeddings.texts if query == "text" else embeddings.photos
    values = weighing.fused(looked.scores, looked.margins)
    tiles = _Tiles(reranker, scenes)
    there = np.flatnonzero(looked.right.any(axis=1))
    ahead, odds = np.empty(len(there)), np.empty(len(there))
    for n, i in enumerate(there.tolist()):
        top = np.argsort(-(embeddings.tiles @ vectors[i]), kind="stable")[: looked.right.shape[1]]
        own = int(looked.right[i].argmax())
        rival = int(np.where(looked.right[i], -np.inf, values[i]).argmax())
        asked = reranker.ask(scenes[i].text if query == "text" else scenes[i].photo)
        ahead[n], odds[n] = values[i, own] - values[i, rival], asked.prefers(*tiles.of(top[[own, rival]]))
        progress(f"compare by {query}", n + 1, len(there))
    return ahead, odds


class _Tiles:
    """Image tokens of tiles, each computed once, when it is first asked for."""

    def __init__(self, reranker: Reranker, scenes: Sequence[Scene]) -> None:
        self._reranker, self._scenes = reranker, scenes
        self._known: dict[int, ImageTokens] = {}

    def of(self, rows: NDArray[np.int64]) -> list[ImageTokens]:
        model = self._reranker.model
        missing = [int(row) for row in rows if int(row) not in self._known]
        if missing:
            pictures = model.prepare([self._scenes[row].tile for row in missing])
            self._known |= dict(zip(missing, model.features(self._reranker.role.vision, pictures), strict=True))
        return [self._known[int(row)] for row in rows]
