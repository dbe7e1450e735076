"""Positions to vehicles and plotters: NMEA 0183 and MAVLink over UDP, TCP and serial lines.

A sender is opened first, so that a wrong address is told before any work, and given fixes one by one. What is no
position never becomes a fix: see fix.py.
"""

from edgegeo.runtime.senders.fix import Fix, fix_of, sigma_m, withheld
from edgegeo.runtime.senders.links import Link, open_link
from edgegeo.runtime.senders.mavlink import MESSAGES, MavlinkSender, open_mavlink
from edgegeo.runtime.senders.nmea import sentences


class NmeaSender:
    """Sends fixes as NMEA sentences over a link, one sentence a datagram."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def send(self, fix: Fix) -> None:
        """GGA, RMC and, if the error is known, GST; LinkError if they could not leave."""
        for sentence in sentences(fix):
            self._link.send(sentence)

    def close(self) -> None:
        """Let go of the line."""
        self._link.close()


__all__ = [
    "MESSAGES",
    "Fix",
    "MavlinkSender",
    "NmeaSender",
    "fix_of",
    "open_link",
    "open_mavlink",
    "sentences",
    "sigma_m",
    "withheld",
]
