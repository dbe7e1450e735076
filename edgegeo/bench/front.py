"""The latency/accuracy front: which rows no other row beats at both."""

from collections.abc import Sequence

from edgegeo.bench.ledger import Row

PHOTO, TEXT, GPS = "photo_to_tile_recall_at_1", "text_to_tile_recall_at_1", "gps_within_750_km"
"""Names of `edgegeo.evaluate`'s metrics."""
METRIC_OF_JOB = {"embed_text": TEXT, "embed_image": PHOTO, "search": TEXT, "generate": GPS}
METRIC_NAMES = {
    TEXT: "Recall@1, text to tile",
    PHOTO: "Recall@1, photo to tile",
    GPS: "GPS within 750 km",
}


def score(row: Row, metric: str | None = None) -> dict[str, float] | None:
    """The row's accuracy in the metric of its job (or the one named), or None where it was not measured."""
    card = row.get("accuracy") or {}
    found: dict[str, float] | None = card.get(metric or METRIC_OF_JOB[row["job"]])
    return found


def front(rows: Sequence[Row]) -> list[Row]:
    """The Pareto-optimal rows of one job, fastest first: time per item down, accuracy up.

    Failed rows and rows without accuracy are never on it; of rows that are equal in both, the first one is.
    """
    scored = [(row["item_ms"], -found["value"], row) for row in rows if "error" not in row and (found := score(row))]
    best = float("inf")
    out = []
    for _, loss, row in sorted(scored, key=lambda item: item[:2]):
        if loss < best:
            best = loss
            out.append(row)
    return out
