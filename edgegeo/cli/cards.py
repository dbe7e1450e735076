"""Accuracy cards in words."""

import math
from typing import Any

from edgegeo.cli.output import percent

SHORT = {
    "text_to_tile_recall_at_1": "text to tile R@1",
    "photo_to_tile_recall_at_1": "photo to tile R@1",
    "gps_within_750_km": "GPS within 750 km",
}
"""The three metrics that tell most, and how they are called where there is little room."""


def card_line(card: dict[str, Any]) -> str:
    """One line of a bundle's accuracy card; says so where a bundle has none."""
    metrics = card.get("metrics", {})
    parts = [f"{name} {percent(metrics[key]['value'])}" for key, name in SHORT.items() if key in metrics]
    if not parts:
        return "not measured when the bundle was made"
    return f"{', '.join(parts)} ({card.get('places', '?')} unseen places)"


def metric_text(name: str, metric: dict[str, float | None]) -> str:
    """A metric with its interval: shares in percent, distances in km."""
    parts = (metric.get("value"), metric.get("low"), metric.get("high"))
    if name.endswith("_km") and "within" not in name:
        value, low, high = ("none" if part is None or not math.isfinite(part) else f"{part:,.0f}" for part in parts)
        return f"{value} km [{low}, {high}]"
    value, low, high = (percent(part) for part in parts)
    return f"{value} [{low}, {high}]"
