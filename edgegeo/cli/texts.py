"""edgegeo index search --texts: the way back, from a tile or a photo to the words that fit it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgegeo.cli.asking import note_weights
from edgegeo.cli.output import emit_json, note, table
from edgegeo.errors import InputError

if TYPE_CHECKING:
    from edgegeo.runtime import Embedder
    from edgegeo.runtime.gallery.backend import GalleryBackend


def tile_query(gallery: "GalleryBackend", id: str) -> tuple[Any, bytes]:
    """The vector (1, dim) and the picture of a tile; InputError for an unknown one."""
    import numpy as np

    row = gallery.row(id)
    if row is None:
        raise InputError(f"gallery {gallery} has no tile '{id}'; edgegeo index search finds some")
    return np.asarray(gallery.vector(row), np.float32)[None], gallery.thumbnail(row)


def search_texts(
    file: Path, vector: Any, shown: Any, embedder: "Embedder", k: int, rerank: int, as_json: bool
) -> None:  # fmt: skip
    """Print the lines of a file that fit a picture best.

    vector: the picture's (1, dim); shown: the picture itself, for re-ranking.
    """
    from edgegeo.runtime import Reranker
    from edgegeo.runtime.doubt import open_fit
    from edgegeo.runtime.gallery.texts import TextGallery, read_texts, rerank_texts

    texts = TextGallery(read_texts(file), embedder)
    hits = texts.search(vector, max(k, rerank))
    if rerank:
        model = embedder.model
        reranker, fit = Reranker(model), open_fit(model.bundle)
        (seen,) = model.features(reranker.role.vision, model.prepare([shown]))
        note_weights(fit, rerank, ("text",))
        weighing = fit.rerank.get("text") if fit is not None else None
        hits = [*rerank_texts(reranker, seen, hits[:rerank], weighing), *hits[rerank:]]
    hits = hits[:k]
    if as_json:
        found = [{"line": hit.row + 1, **vars(hit)} for hit in hits]
        for one in found:
            del one["row"]
        emit_json({"texts": str(file), "count": len(texts), "hits": found})
        return
    rows = [
        (f"{hit.score:.3f}", "-" if hit.rerank_score is None else f"{hit.rerank_score:.2f}", hit.text) for hit in hits
    ]
    table(("score", "p(yes)", "text"), rows)
    note(f"{len(texts):,} texts searched")
