"""Recall@k: is the right tile among the first k? The gallery is the tiles of all places of the run."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgegeo.evaluate.scenes import Scene
from edgegeo.progress import Progress, silent
from edgegeo.runtime import Embedder

RECALL_AT = (1, 5, 10)
_CHUNK = 64


@dataclass(frozen=True)
class Embeddings:
    """Unit vectors (N, dim) float32 of every scene's text, photo and tile."""

    texts: NDArray[np.float32]
    photos: NDArray[np.float32]
    tiles: NDArray[np.float32]


def embed_scenes(
    embedder: Embedder, scenes: Sequence[Scene], batch: int = 16, progress: Progress = silent
) -> Embeddings:
    """Embed texts, photos and tiles of all scenes."""
    parts: dict[str, list[NDArray[np.float32]]] = {"texts": [], "photos": [], "tiles": []}
    for start in range(0, len(scenes), _CHUNK):
        chunk = scenes[start : start + _CHUNK]
        parts["texts"].append(_texts(embedder, [s.text for s in chunk], batch))
        parts["photos"].append(embedder.images([s.photo for s in chunk], batch=batch))
        parts["tiles"].append(embedder.images([s.tile for s in chunk], batch=batch))
        progress("embed", start + len(chunk), len(scenes))
    return Embeddings(**{name: np.concatenate(rows) for name, rows in parts.items()})


def _texts(embedder: Embedder, texts: Sequence[str], batch: int) -> NDArray[np.float32]:
    """Embeddings; a text that is too long for the model gets the zero vector, which finds nothing: a miss."""
    rows = np.zeros((len(texts), embedder.dim), np.float32)
    fitting = [i for i, text in enumerate(texts) if embedder.reads(text)]
    if fitting:
        rows[fitting] = embedder.texts([texts[i] for i in fitting], batch=batch)
    return rows


def ranks(queries: NDArray[np.float32], gallery: NDArray[np.float32]) -> NDArray[np.int64]:
    """Rank (from 0) of gallery row i for query i, both (N, dim). A tie counts against the query.

    A gallery of equal rows therefore scores as it should: not at all.
    """
    out = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), 1024):
        scores = queries[start : start + 1024] @ gallery.T
        own = scores[np.arange(len(scores)), start + np.arange(len(scores))]
        out[start : start + 1024] = (scores >= own[:, None]).sum(axis=1) - 1
    return out


def retrieval_hits(embeddings: Embeddings) -> dict[str, NDArray[np.float64]]:
    """For each direction and k (N,) of 0 and 1, a value a place: `text_to_tile_recall_at_1` and so on."""
    pairs = {
        "text_to_tile": (embeddings.texts, embeddings.tiles),
        "photo_to_tile": (embeddings.photos, embeddings.tiles),
        "tile_to_text": (embeddings.tiles, embeddings.texts),
    }
    out = {}
    for name, (queries, gallery) in pairs.items():
        found = ranks(queries, gallery)
        for k in RECALL_AT:
            out[f"{name}_recall_at_{k}"] = (found < k).astype(np.float64)
    return out
