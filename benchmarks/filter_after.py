"""Searches held to a place: by the gallery, by a mask over all rows, and by a filter after a search."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from edgegeo.runtime import Gallery
from edgegeo.runtime.gallery.exact import products
from edgegeo.runtime.gallery.inverted import INVERTED
from edgegeo.runtime.gallery.region import Circle

K = 10
FIRST_FETCH = 10 * K
TOWNS = 20


def by_place(path: Path, where: np.ndarray, queries: np.ndarray, radii: Sequence[float]) -> list[dict[str, Any]]:
    """Searches within R km next to a mask over all rows first, and to filtering after a search (see `PostFilter`)."""
    gallery = Gallery.open(path)
    after = PostFilter(gallery)
    towns = where[np.random.default_rng(3).integers(0, len(where), TOWNS)]
    out = []
    for km in radii:
        circles = [Circle(float(lat), float(lon), km) for lat, lon in towns]
        found = [one_place(gallery, after, circle, query) for circle, query in zip(circles, queries, strict=False)]
        row: dict[str, Any] = {"km": km}
        for name in found[0]:
            values = [one[name] for one in found]
            middle = np.median if name.endswith("_ms") or name == "rows_inside" else np.mean
            row[name] = float(middle(values))
        out.append(row)
        print("  " + "  ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)
    return out


def one_place(gallery: Gallery, after: "PostFilter", circle: Circle, query: np.ndarray) -> dict[str, float]:
    """One query within one circle by everybody: milliseconds, whether all hits there are were found, recall."""
    positions = np.asarray(gallery.positions)
    (segment,) = gallery.stack.segments

    def mask() -> np.ndarray:
        inside = np.flatnonzero(circle.holds(positions))
        scores = products(segment.vectors[inside], query[None])[0]
        return np.asarray(inside[np.argsort(-scores, kind="stable")[:K]])

    inside = int(np.count_nonzero(circle.holds(positions)))
    truth, enough = mask(), after.enough(circle, query)
    ways: dict[str, Callable[[], np.ndarray]] = {
        "within": lambda: gallery.search(query, K, circle).rows[0],
        "mask": mask,
        "grown": lambda: after.grown(circle, query, min(K, inside)),
        "spare": lambda: after.grown(circle, query, min(2 * K, inside)),
        "known": lambda: after.fetched(circle, query, enough, 64)[:K],
    }
    out: dict[str, float] = {"rows_inside": inside}
    for name, search in ways.items():
        start = time.perf_counter()
        rows = search()
        out[f"{name}_ms"] = (time.perf_counter() - start) * 1e3
        if name in ("grown", "spare"):
            out[f"{name}_searches"] = after.searches
        out[f"{name}_filled"] = float(len(rows) == len(truth))
        out[f"{name}_recall"] = len(np.intersect1d(rows, truth)) / max(1, len(truth))
    return out


class PostFilter:
    """Filtering after a search: FAISS's lists name the nearest, those inside are scored by their vectors."""

    def __init__(self, gallery: Gallery) -> None:
        (self.segment,) = gallery.stack.segments
        self.positions = np.asarray(gallery.positions)
        self.lists = faiss.read_index(str(self.segment.folder / INVERTED))
        self.probes = self.segment.entry.stages[-1].probes
        """As many as the gallery's own search without a place takes."""
        self.searches = 0
        """How many the last `grown` took."""

    def fetched(self, circle: Circle, query: np.ndarray, count: int, probes: int) -> np.ndarray:
        """Those inside of the `count` nearest, best first; probes grow with the count, by four lists a list of rows."""
        probes = min(self.lists.nlist, probes + 4 * count * self.lists.nlist // len(self.positions))
        how = faiss.IVFRaBitQSearchParameters(nprobe=probes, qb=8)
        found = self.lists.search(query[None], count, params=how)[1][0]
        found = np.sort(found[found >= 0])
        found = found[circle.holds(self.positions[found])]
        scores = products(self.segment.vectors[found], query[None])[0]
        return np.asarray(found[np.argsort(-scores, kind="stable")])

    def grown(self, circle: Circle, query: np.ndarray, wanted: int) -> np.ndarray:
        """As a caller writes it: fetch four times as many until `wanted` are inside, or everything was fetched.

        The codes order roughly: the first ten inside are not always the best ten, twice as many hold nearly all of
        them. The count that is wanted is given, though a caller would not know of places with fewer rows.
        """
        count, self.searches = FIRST_FETCH, 0
        while True:
            count, self.searches = min(count, len(self.positions)), self.searches + 1
            rows = self.fetched(circle, query, count, self.probes)
            if len(rows) >= wanted or count == len(self.positions):
                return rows[:K]
            count *= 4

    def enough(self, circle: Circle, query: np.ndarray) -> int:
        """The least count, up to 102,400, that leaves ten inside: what nobody knows before the search."""
        counts = [FIRST_FETCH * 4**step for step in range(6) if FIRST_FETCH * 4**step <= len(self.positions)]
        return next((count for count in counts if len(self.fetched(circle, query, count, 64)) >= K), counts[-1])
