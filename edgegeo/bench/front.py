"""The front: which rows no other row beats at both cost and accuracy."""

from collections.abc import Callable, Sequence

from edgegeo.bench.rows import Row, joules

PHOTO, TEXT, GPS = "photo_to_tile_recall_at_1", "text_to_tile_recall_at_1", "gps_within_750_km"
"""Names of `edgegeo.evaluate`'s metrics."""
RERANKED, FUSED, LOCATED = "reranked_photo_recall_at_1", "fused_gps_within_750_km", "located_within_750_km"
"""Measured with the cell's own re-rank depth and candidates."""
METRIC_NAMES = {
    TEXT: "Recall@1, text to tile",
    PHOTO: "Recall@1, photo to tile",
    GPS: "GPS within 750 km",
    RERANKED: "Recall@1, photo to tile, re-ranked",
    FUSED: "GPS within 750 km, candidates fused",
    LOCATED: "located within 750 km",
}
Cost = Callable[[Row], float | None]
COSTS: dict[str, tuple[str, Cost]] = {
    "latency": ("ms per item", lambda row: row["item_ms"]),
    "p90": ("p90 of a call, ms", lambda row: row["latency_ms"]["p90"]),
    "memory": ("peak memory, MB", lambda row: row["memory_mb"]["peak"]),
    "energy": ("energy per item, J", joules),
    "size": ("bundle, MB", lambda row: row["size_bytes"] / 2**20),
}
"""What can lie across from accuracy: name -> title, and how to read it off a row (None: not measured)."""


def metric_of(job: str, candidates: int = 1) -> str:
    """The metric that says how good the job's results are."""
    if job == "generate" and candidates > 1:
        return FUSED
    known = {"embed_text": TEXT, "search": TEXT, "embed_image": PHOTO, "rerank": RERANKED, "generate": GPS}
    return known.get(job, LOCATED)


def score(row: Row, metric: str | None = None) -> dict[str, float] | None:
    """The row's accuracy in the metric of its job (or the one named), or None where it was not measured."""
    card = row.get("accuracy") or {}
    found: dict[str, float] | None = card.get(metric or metric_of(row["job"], row.get("candidates", 1)))
    return found


def front(rows: Sequence[Row], cost: str = "latency") -> list[Row]:
    """The Pareto-optimal rows of one job, cheapest first: cost down, accuracy up.

    Failed rows and rows without accuracy or cost are never on it; of rows that are equal in both, the first one is.
    """
    price = COSTS[cost][1]
    scored = [
        (paid, -found["value"], row)
        for row in rows
        if "error" not in row and (found := score(row)) and (paid := price(row)) is not None
    ]
    best = float("inf")
    out = []
    for _, loss, row in sorted(scored, key=lambda item: item[:2]):
        if loss < best:
            best = loss
            out.append(row)
    return out
