"""An approximate search for large galleries: FAISS's inverted lists of RaBitQ codes (Gao and Long 2024, 2405.12497).

About dim / 8 + 20 bytes a row in memory. The file is FAISS's own, which finds neither flipped bytes nor a cut: all of
it is compared with its checksums before FAISS sees it.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from edgegeo.errors import GalleryError
from edgegeo.progress import Progress
from edgegeo.runtime.gallery.exact import Floats, Numbers
from edgegeo.runtime.gallery.segment import Segment

INVERTED = "inverted.faiss"
_TRAINED = 40  # rows a list; FAISS asks for 39
_PIECE = 1 << 16
_QUERY_BITS = 8


def lists_for(rows: int) -> int:
    """How many lists: near twice the square root of the rows, a power of two."""
    return max(1, min(1 << round(math.log2(2 * math.sqrt(rows))), rows // _TRAINED))


def write_inverted(folder: Path, progress: Progress) -> int:
    """Build the lists of the rows in a segment's folder beside them, and say how many there are."""
    faiss = require_faiss(folder.parent.parent)
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    rows, dim = vectors.shape
    lists = lists_for(rows)
    index = faiss.index_factory(dim, f"IVF{lists},RaBitQfs", faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = 8
    progress("index", 0, rows)
    index.train(np.asarray(vectors[:: max(1, rows // (_TRAINED * lists))], np.float32))
    for start in range(0, rows, _PIECE):
        index.add(np.asarray(vectors[start : start + _PIECE], np.float32))
        progress("index", min(start + _PIECE, rows), rows)
    faiss.write_index(index, str(folder / INVERTED))
    return lists


class Inverted:
    """The lists of one segment; GalleryError where FAISS is not installed."""

    def __init__(self, segment: Segment) -> None:
        self._faiss = require_faiss(segment.folder.parent.parent)
        mapped = segment.file(INVERTED)
        mapped.check()
        try:
            self._index = self._faiss.deserialize_index(mapped.mapped)
        except RuntimeError as error:
            raise GalleryError(f"{mapped.file} can't be read ({str(error)[-80:]}); build the gallery again") from None
        if (self._index.ntotal, self._index.d) != segment.vectors.shape:
            raise GalleryError(f"{mapped.file} doesn't fit the segment's rows; build the gallery again")

    @property
    def lists(self) -> int:
        """How many there are."""
        return int(self._index.nlist)

    def nearest(self, queries: Floats, count: int, probes: int) -> Numbers:
        """Rows (Q, count) likely to be near each query (Q, D), in no order; -1 where the lists had no more."""
        settings = self._faiss.IVFRaBitQSearchParameters(nprobe=probes, qb=_QUERY_BITS)
        _, rows = self._index.search(np.ascontiguousarray(queries), count, params=settings)
        return np.asarray(rows, np.int64)


def require_faiss(gallery: Path) -> Any:
    """The faiss module; GalleryError with the remedy where it is not installed."""
    try:
        import faiss
    except ImportError:
        raise GalleryError(
            f"the approximate index of {gallery} needs FAISS; install it with: pip install 'edgegeo[index]', or do "
            "without: edgegeo index compact --exact"
        ) from None
    return faiss
