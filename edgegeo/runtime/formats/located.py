"""What a document is written from: an answer, the name of its photo, and the time."""

import math
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from edgegeo.errors import InputError
from edgegeo.geo import check_position

if TYPE_CHECKING:
    from edgegeo.runtime.outcome import Answer


@dataclass(frozen=True)
class Located:
    """One photo (or description) and its answer."""

    name: str
    answer: "Answer"
    time: datetime
    """When the answer was made, with its time zone; documents show it in UTC."""

    @property
    def stamp(self) -> str:
        """The time in UTC as XML Schema and ISO 8601 write it, to the second."""
        return self.time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def facts(self) -> dict[str, str | float | None]:
        """What is known about the position: how far it may be off, how sure it is, which part decided."""
        answer = self.answer
        return {
            "radius_km": answer.radius_km,
            "confidence": getattr(answer, "confidence", None),
            "source": answer.source,
        }

    @property
    def described(self) -> str:
        """One line for people."""
        answer = self.answer
        if answer.position is None:
            return "no position: not sure enough" if answer.abstained else "no position found"
        words = [f"{degrees(answer.position.lat)}, {degrees(answer.position.lon)}", f"by {answer.source}"]
        if answer.radius_km is not None:
            words.append(f"within {answer.radius_km:.3g} km")
        if answer.confidence is not None:
            words.append(f"confidence {answer.confidence:.2f}")
        words += answer.warnings
        return ", ".join(words)


@dataclass(frozen=True)
class Failed:
    """A photo that could not be located, and why."""

    name: str
    error: str


def checked(one: Located) -> None:
    """The border: InputError, naming the photo, if any number that is a place or a radius is none."""
    answer = one.answer
    places = [answer.position, *(hit.position for hit in answer.hits), *(c.position for c in answer.candidates)]
    try:
        for place in places:
            if place is not None:
                check_position(place.lat, place.lon)
    except InputError as error:
        raise InputError(f"the answer for {one.name} is no place and is not written: {error}") from None
    radius = answer.radius_km
    if radius is not None and not (math.isfinite(radius) and radius >= 0):
        raise InputError(f"the answer for {one.name} has the radius {radius} km, which is none; it is not written")


def degrees(value: float) -> str:
    """Degrees with 6 decimals (0.11 m on the ground), never -0."""
    return f"{round(value, 6) + 0.0:.6f}"
