"""Answers to write and send, made by hand or by hypothesis."""

from datetime import datetime, timezone
from typing import Any

from hypothesis import strategies as st

from edgegeo.geo import Position
from edgegeo.runtime.formats import Located
from edgegeo.runtime.generate import Generated
from edgegeo.runtime.outcome import Answer, Hit

NOW = datetime(2026, 11, 20, 23, 59, 58, 670_000, timezone.utc)
NASTY = "<b>&amp;\"'\x00\x1b]]>\n\udce9 \U0001f5fa.jpg"
"""A file name with everything that XML has to escape or can't hold."""

lats = st.floats(-90, 90) | st.sampled_from([-90.0, 90.0, 0.0, -0.0, 59.9999999, -1e-9, 45.0])
lons = st.floats(-180, 180) | st.sampled_from([-180.0, 180.0, 0.0, -0.0, 179.99999999, -179.99999999])
positions = st.builds(Position, lats, lons)
names = st.text(st.characters(), min_size=1, max_size=20) | st.just(NASTY)


def answer(place: Position | None, radius_km: float | None = None, tiles: tuple[str, ...] = (), **more: Any) -> Answer:
    """An answer with tiles of these names, each a little off the place."""
    hits = tuple(Hit(name, Position(10.0 + i, -20.0), 0.9 - i / 10, 0.5 if i else None) for i, name in enumerate(tiles))
    return Answer(
        place, "none" if place is None else "generation", radius_km, hits, "text", place, {"total": 1.0},
        **more,
    )  # fmt: skip


def located(place: Position | None, radius_km: float | None = None, name: str = "a.jpg", **more: Any) -> Located:
    """The answer for one photo."""
    return Located(name, answer(place, radius_km, **more), NOW)


def drawn(lat: float, lon: float) -> Generated:
    """A candidate."""
    return Generated(f"{lat}, {lon}", Position(lat, lon), -1.5, (1, 2))


def broken(value: float) -> Position:
    """A position that no constructor lets through."""
    place = Position(1.0, 2.0)
    object.__setattr__(place, "lat", value)
    return place
