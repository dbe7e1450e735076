"""MAVLink 2 messages of a fix for autopilots: GPS_INPUT and VISION_POSITION_ESTIMATE (messages of common.xml)."""

import math
from datetime import datetime, timedelta, timezone
from typing import Any

from edgegeo.errors import LinkError
from edgegeo.geo import EARTH_RADIUS_KM, Position, distance_km
from edgegeo.runtime.senders.fix import Fix
from edgegeo.runtime.senders.links import TIMEOUT_S, Link, open_link

MESSAGES = ("gps_input", "vision_position_estimate")
SYSTEM, COMPONENT = 1, 191
"""The vehicle's system number and MAV_COMP_ID_ONBOARD_COMPUTER: a computer aboard speaks as part of its vehicle."""
UNKNOWN_SIGMA = 1e6
"""Standard deviation (metres or radians) of what a photo says nothing about: height and attitude."""
_UNKNOWN = 65535.0
_GPS_EPOCH = datetime(1980, 1, 6, tzinfo=timezone.utc)
_LEAP_SECONDS = 18
"""GPS time ahead of UTC, since 2017-01-01; no leap second has been announced since."""


class MavlinkSender:
    """Sends fixes over a link. Needs pymavlink, the extra edgegeo[mavlink]; LinkError without it."""

    def __init__(self, link: Link, message: str = "gps_input", origin: Position | None = None) -> None:
        if message not in MESSAGES:
            raise LinkError(f"unknown MAVLink message '{message}'; there are {', '.join(MESSAGES)}")
        if message == "vision_position_estimate" and origin is None:
            raise LinkError(
                "vision_position_estimate counts metres from the vehicle's local origin; give --origin LAT,LON"
            )
        self._link, self._message, self._origin = link, message, origin
        self._dialect = _dialect()
        self._mav = self._dialect.MAVLink(None, srcSystem=SYSTEM, srcComponent=COMPONENT)

    def send(self, fix: Fix) -> None:
        """One message with this fix; LinkError if it could not leave."""
        made = self._gps_input(fix) if self._message == "gps_input" else self._vision(fix)
        self._link.send(bytes(made.pack(self._mav)))
        self._mav.seq = (self._mav.seq + 1) % 256

    def close(self) -> None:
        """Let go of the line."""
        self._link.close()

    def _gps_input(self, fix: Fix) -> Any:
        """A 2D fix without altitude, velocity and dilution: their ignore flags are set.

        horiz_accuracy is the standard deviation along one axis in metres, which is how ArduPilot and PX4 weigh it.
        """
        flags = self._dialect
        ignored = (
            flags.GPS_INPUT_IGNORE_FLAG_ALT
            | flags.GPS_INPUT_IGNORE_FLAG_HDOP
            | flags.GPS_INPUT_IGNORE_FLAG_VDOP
            | flags.GPS_INPUT_IGNORE_FLAG_VEL_HORIZ
            | flags.GPS_INPUT_IGNORE_FLAG_VEL_VERT
            | flags.GPS_INPUT_IGNORE_FLAG_SPEED_ACCURACY
            | flags.GPS_INPUT_IGNORE_FLAG_VERTICAL_ACCURACY
        )
        if fix.sigma_m is None:
            ignored |= flags.GPS_INPUT_IGNORE_FLAG_HORIZONTAL_ACCURACY
        week, milliseconds = gps_week(fix.time)
        return self._mav.gps_input_encode(
            time_usec=_microseconds(fix.time), gps_id=0, ignore_flags=ignored,
            time_week_ms=milliseconds, time_week=week, fix_type=2,
            lat=round(fix.position.lat * 1e7), lon=round(fix.position.lon * 1e7), alt=0.0,
            hdop=_UNKNOWN, vdop=_UNKNOWN, vn=0.0, ve=0.0, vd=0.0, speed_accuracy=0.0,
            horiz_accuracy=fix.sigma_m or 0.0, vert_accuracy=0.0, satellites_visible=0, yaw=0,
        )  # fmt: skip

    def _vision(self, fix: Fix) -> Any:
        """North and east of the origin with their variance; height and attitude are 0 with a vast one.

        Without a known error the covariance is unknown: NaN in its first element, as common.xml has it.
        """
        assert self._origin is not None
        north, east = north_east_m(self._origin, fix.position)
        covariance = [0.0] * 21
        for place in (11, 15, 18, 20):  # the diagonal of z, roll, pitch and yaw in the upper triangle by rows
            covariance[place] = UNKNOWN_SIGMA**2
        covariance[0] = covariance[6] = math.nan if fix.sigma_m is None else fix.sigma_m**2
        return self._mav.vision_position_estimate_encode(
            usec=_microseconds(fix.time), x=north, y=east, z=0.0, roll=0.0, pitch=0.0, yaw=0.0, covariance=covariance
        )


def open_mavlink(
    address: str, message: str = "gps_input", origin: Position | None = None, wait_s: float = TIMEOUT_S
) -> MavlinkSender:
    """A sender to an address as pymavlink writes them; LinkError if it can't be reached.

    udpout:HOST:PORT, tcp:HOST:PORT, tcpin:HOST:PORT (serves every client that connects), serial:/dev/NAME:BAUD or
    /dev/NAME,BAUD.
    """
    _dialect()  # before a port is taken
    kind, _, rest = address.partition(":")
    schemes = {"udpout": "udp", "tcp": "tcp", "tcpin": "tcp-listen", "serial": "serial"}
    if address.startswith("/dev/"):
        kind, rest = "serial", ":".join(address.rsplit(",", 1))
    if kind not in schemes or rest.startswith("//"):
        raise LinkError(
            f"'{address}' is no MAVLink address; give udpout:HOST:PORT, tcp:HOST:PORT, tcpin:HOST:PORT or "
            "serial:/dev/NAME:BAUD"
        )
    link = open_link(f"{schemes[kind]}://{rest}", wait_s)
    try:
        return MavlinkSender(link, message, origin)
    except LinkError:
        link.close()
        raise


def north_east_m(origin: Position, place: Position) -> tuple[float, float]:
    """Metres north and east of the origin: distance and first bearing of the great circle (azimuthal equidistant).

    That is the projection of PX4's local frame; near the origin it is the plane that every local frame is.
    """
    lat1, lat2 = math.radians(origin.lat), math.radians(place.lat)
    across = math.radians(place.lon - origin.lon)
    bearing = math.atan2(
        math.sin(across) * math.cos(lat2),
        math.cos(lat1) * math.sin(lat2) - math.sin(lat1) * math.cos(lat2) * math.cos(across),
    )
    far = 1000.0 * float(distance_km(origin.lat, origin.lon, place.lat, place.lon))
    assert far <= 1000.0 * EARTH_RADIUS_KM * math.pi + 1.0
    return far * math.cos(bearing), far * math.sin(bearing)


def gps_week(time: datetime) -> tuple[int, int]:
    """GPS week and milliseconds into it."""
    since = time.astimezone(timezone.utc) - _GPS_EPOCH + timedelta(seconds=_LEAP_SECONDS)
    weeks, rest = divmod(since, timedelta(weeks=1))
    return weeks, rest // timedelta(milliseconds=1)


def _microseconds(time: datetime) -> int:
    return (time - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1)


def _dialect() -> Any:
    try:
        from pymavlink.dialects.v20 import common
    except ImportError:
        raise LinkError("MAVLink needs pymavlink, which is not installed; pip install 'edgegeo[mavlink]'") from None
    return common
