"""NMEA 0183 sentences (version 2.3 and later) of a fix: GGA, RMC and, if its error is known, GST."""

from datetime import timezone

from edgegeo.runtime.senders.fix import Fix

TALKER = "GP"
"""Said to be a GPS, since plotters and gpsd look for it; quality 6 and mode E tell that it is none."""


def sentences(fix: Fix) -> list[bytes]:
    """GGA, RMC and GST, each with checksum and CR LF, at most 82 bytes long.

    GGA: quality 6 (estimated), no satellites; HDOP, altitude and geoid stay empty, for there are none. RMC: status A,
    mode E (estimated), as u-blox receivers write dead reckoning; no speed and no course. GST: one standard deviation
    north and east in metres. Positions have ddmm.mmmm, 0.19 m.
    """
    when = fix.time.astimezone(timezone.utc)
    clock = when.strftime("%H%M%S.") + f"{when.microsecond // 10_000:02d}"
    lat = f"{_minutes(fix.position.lat, 2)},{'S' if fix.position.lat < 0 else 'N'}"
    lon = f"{_minutes(fix.position.lon, 3)},{'W' if fix.position.lon < 0 else 'E'}"
    lines = [
        f"{TALKER}GGA,{clock},{lat},{lon},6,00,,,M,,M,,",
        f"{TALKER}RMC,{clock},A,{lat},{lon},,,{when:%d%m%y},,,E",
    ]
    if fix.sigma_m is not None:
        off = f"{fix.sigma_m:.1f}"
        lines.append(f"{TALKER}GST,{clock},,{off},{off},,{off},{off},")
    return [framed(line) for line in lines]


def framed(line: str) -> bytes:
    """The sentence as it goes over the line: $...*HH CR LF, HH the exclusive or of its bytes."""
    body = line.encode("ascii")
    check = 0
    for byte in body:
        check ^= byte
    return b"$%s*%02X\r\n" % (body, check)


def _minutes(degrees: float, width: int) -> str:
    """Degrees and minutes, dddmm.mmmm; rounded as a whole, so that 59.99999 minutes become a degree, never 60."""
    tenthousandths = round(abs(degrees) * 600_000)
    whole, rest = divmod(tenthousandths, 600_000)
    minutes, fraction = divmod(rest, 10_000)
    return f"{whole:0{width}d}{minutes:02d}.{fraction:04d}"
