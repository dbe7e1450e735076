"""What leaves for a receiver: a position, how far it may be off, and when. The border where anything else stops."""

import math
from dataclasses import dataclass
from datetime import datetime

from edgegeo.errors import LinkError
from edgegeo.geo import Position, check_position
from edgegeo.runtime.formats.located import Located, checked
from edgegeo.runtime.fusion import INSIDE


@dataclass(frozen=True)
class Fix:
    """A position for autopilots and plotters."""

    position: Position
    sigma_m: float | None
    """Standard deviation along each of north and east, in metres; None if nothing is known of it."""
    time: datetime
    """With its time zone."""

    def __post_init__(self) -> None:
        check_position(self.position.lat, self.position.lon)
        if self.sigma_m is not None and not (math.isfinite(self.sigma_m) and self.sigma_m > 0):
            raise LinkError(f"a standard deviation is a number above 0 metres, not {self.sigma_m}; nothing was sent")
        if self.time.tzinfo is None:
            raise LinkError("a fix needs the time zone of its time, since receivers want UTC; nothing was sent")


def withheld(one: Located) -> str | None:
    """Why an answer must not be sent to a vehicle; None if it may.

    Not without a position (the locator gives none below the confidence asked for); not where the model itself has
    reasons for doubt; not a prior alone, since it came from outside and would come back as if it had been measured; and
    not 0, 0, which most receivers take for "no fix".
    """
    checked(one)
    answer = one.answer
    if answer.position is None:
        if answer.abstained:
            return f"its confidence of {answer.confidence or 0.0:.2f} is below the one asked for"
        return "no position was found"
    if answer.warnings:
        return "; ".join(answer.warnings)
    if answer.source == "prior":
        return "it is the prior position, nothing that was found"
    if round(answer.position.lat, 5) == 0 and round(answer.position.lon, 5) == 0:
        return "0, 0 means to receivers that there is no position"
    return None


def fix_of(one: Located) -> Fix:
    """The fix of an answer that is not withheld; LinkError without a position."""
    checked(one)
    position, radius = one.answer.position, one.answer.radius_km
    if position is None:
        raise LinkError(f"{one.name} has no position; nothing was sent")
    return Fix(position, sigma_m(radius) if radius else None, one.time)


def sigma_m(radius_km: float, share: float = INSIDE) -> float:
    """Metres of standard deviation, along each axis, of the radius that holds `share` of the cases.

    If north and east are off by independent normal errors of one deviation s, the distance is Rayleigh distributed:
    share = 1 - exp(-r^2 / 2 s^2), so s = r / sqrt(-2 ln(1 - share)): r / 1.794 for 80 %.
    """
    return 1000.0 * radius_km / math.sqrt(-2.0 * math.log(1.0 - share))
