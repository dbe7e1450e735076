"""What embeddings lose in fewer bytes: Recall@k of tiles kept as int8, as signs, and cut to their first numbers."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgegeo.evaluate.retrieval import Embeddings, ranks
from edgegeo.runtime.codes import fit_scales, from_binary, from_int8, to_binary, to_int8, truncate

Vectors = NDArray[np.float32]

AT = (1, 10)
CANDIDATES = 40
"""Tiles nearest by signs that are scored again as int8."""


def coded_hits(embeddings: Embeddings, dims: Sequence[int] = ()) -> dict[str, NDArray[np.float64]]:
    """(N,) of 0 and 1, a value a place, for each code, direction and k: `int8_text_to_tile_recall_at_1` and so on.

    int8: tiles with a scale per dimension, queries float32. binary: signs of both, by Hamming distance (a tie counts
    against the query). binary_rescored: the `CANDIDATES` nearest of those, scored again as int8. dims<d>: both cut to
    their first d numbers; dims: for which lengths.
    """
    tiles = embeddings.tiles
    scales = fit_scales(tiles)
    int8 = from_int8(to_int8(tiles, scales), scales)
    signs = from_binary(to_binary(tiles), tiles.shape[1])
    out = {}
    for name, queries in (("text_to_tile", embeddings.texts), ("photo_to_tile", embeddings.photos)):
        bits = from_binary(to_binary(queries), queries.shape[1])
        found = {"int8": ranks(queries, int8), "binary": ranks(bits, signs)}
        found["binary_rescored"] = _rescored(queries, int8, bits @ signs.T)
        for dim in dims:
            found[f"dims{dim}"] = ranks(truncate(queries, dim), truncate(tiles, dim))
        for code, rank in found.items():
            for k in AT:
                out[f"{code}_{name}_recall_at_{k}"] = (rank < k).astype(np.float64)
    return out


def _rescored(queries: Vectors, int8: Vectors, near: Vectors) -> NDArray[np.int64]:
    """Rank (from 0) of tile i for query i among the tiles with the best scores `near` (N, N); N where it is not one."""
    count = len(queries)
    out = np.full(count, count, np.int64)
    for i in range(count):
        chosen = np.argsort(-near[i], kind="stable")[:CANDIDATES]
        if i in chosen:
            scores = int8[chosen] @ queries[i]
            out[i] = int((scores >= scores[chosen == i][0]).sum()) - 1
    return out
