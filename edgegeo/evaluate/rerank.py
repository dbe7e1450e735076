"""Does looking at query and candidate together move the right tile up? First-stage top k, then yes/no."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgegeo.evaluate.retrieval import Embeddings
from edgegeo.evaluate.scenes import Scene
from edgegeo.progress import Progress, silent
from edgegeo.runtime import ImageTokens, Reranker
from edgegeo.runtime.rerank import fused

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RerankRun:
    """0/1 a place (N,): the right tile comes first, before and after re-ranking the same candidates."""

    first_stage: Floats
    yes_no: Floats
    """By p(yes) alone."""
    fused: Floats
    """By both stages, as `Locator` orders them (edgegeo.runtime.rerank.fused)."""


def rerank_scenes(
    reranker: Reranker, embeddings: Embeddings, scenes: Sequence[Scene], query: str, k: int = 10,
    progress: Progress = silent,
) -> RerankRun:  # fmt: skip
    """Re-rank the top k tiles of every scene's text or photo (`query`: "text" or "photo")."""
    vectors = embeddings.texts if query == "text" else embeddings.photos
    first, alone, both = (np.zeros(len(scenes)) for _ in range(3))
    tiles = _tile_features(reranker, scenes)
    for i, scene in enumerate(scenes):
        scores = embeddings.tiles @ vectors[i]
        top = np.argsort(-scores, kind="stable")[:k]
        pieces, pictures = reranker.query(scene.text if query == "text" else scene.photo)
        margins = reranker.features(pieces, pictures, [tiles[j] for j in top])
        first[i] = top[0] == i
        alone[i] = top[int(np.argmax(margins))] == i
        both[i] = top[int(np.argmax(fused(scores[top], margins)))] == i
        progress(f"re-rank by {query}", i + 1, len(scenes))
    return RerankRun(first, alone, both)


def _tile_features(reranker: Reranker, scenes: Sequence[Scene], batch: int = 16) -> list[ImageTokens]:
    """Image tokens of all tiles, computed once."""
    out: list[ImageTokens] = []
    for start in range(0, len(scenes), batch):
        tiles = reranker.model.prepare([s.tile for s in scenes[start : start + batch]])
        out += reranker.model.features(reranker.role.vision, tiles)
    return out
